"""Which network the demo takes. The demo itself takes minutes, and is what `make demo` runs."""

import shlex
import subprocess

import pytest

from configs.errors import InputError
from configs.printed_commands import program_words
from demo import run
from preprocess.backbones import backbone


@pytest.mark.parametrize(
    ("available", "weights", "expected"),
    [
        ({"inception_v3", "efficientnet_lite0"}, "imagenet", ["--weights", "imagenet"]),
        ({"efficientnet_lite0"}, "imagenet", ["--backbone", "efficientnet_lite0", "--weights", "imagenet"]),
        (set(), "random", ["--weights", "random", "--seed", "0"]),
        (set(), "imagenet", None),
    ],
)
def test_random_weights_are_taken_only_if_they_are_asked_for(available, weights, expected, monkeypatch):
    def check(spec, storage=None):
        if spec.architecture not in available:
            raise InputError("weights: not here")

    monkeypatch.setattr(backbone, "check_weights", check)
    if expected is None:
        with pytest.raises(InputError, match="not here"):
            run._choose_backbone(weights)
    else:
        assert run._choose_backbone(weights) == expected


def test_it_runs_what_it_prints_and_prints_what_a_person_can_type(monkeypatch, capsys):
    ran = []

    def stand_in(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, stdout='{"predictions": []}')

    monkeypatch.setattr(subprocess, "run", stand_in)
    run._run("trainer.task", "--output_path", "my photos/training")
    run._prediction(run.pathlib.Path("model"), "a b.jpg")
    assert ran[0] == [*program_words("train"), "--output_path", "my photos/training"]
    assert ran[1] == [*program_words("predict"), "--model_dir", "model", "--json", "a b.jpg"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    assert [shlex.split(line.removeprefix("$ ")) for line in printed] == ran
