"""The Makefile in a folder of its own, with empty files in place of those that its environment is made of."""

from __future__ import annotations

import pathlib
import shutil

from tests.support.programs import ROOT

_NEEDED = ("pyproject.toml", "setup.py", "requirements.lock", "preprocess/images/_pixels.c")


def copy_makefile(folder: pathlib.Path) -> None:
    """Copies it into a folder. The empty files are newer than any stamp that is there."""
    shutil.copy(ROOT / "Makefile", folder)
    for needed in _NEEDED:
        (folder / needed).parent.mkdir(parents=True, exist_ok=True)
        (folder / needed).touch()
