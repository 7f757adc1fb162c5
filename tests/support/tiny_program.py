"""A real program of the project with the tiny network among those it knows.

python -m tests.support.tiny_program MODULE FLAGS...
"""

import importlib
import sys

from configs.program import run_program
from preprocess.backbones import backbone
from tests.support import tiny_network


class _Setting:
    """What `tiny_network.install` asks of pytest's monkeypatch, for good."""

    @staticmethod
    def setitem(mapping, key, value):
        mapping[key] = value


if __name__ == "__main__":
    tiny_network.install(_Setting)
    assert tiny_network.NAME in backbone.ARCHITECTURES
    program = importlib.import_module(sys.argv[1])
    run_program(lambda _: program.main(sys.argv[2:]))
