from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import pytest

from cloud.trainer_package import build_package
from configs.errors import InputError
from configs.source_files import REPOSITORY


def test_the_same_source_is_the_same_file():
    package = build_package()
    assert package == build_package()
    assert package.content[4:8] == bytes(4)  # Where gzip says when.
    digest = hashlib.sha256(package.content).hexdigest()
    assert package.name == f"hugs-0.1.0-{digest[:12]}.tar.gz"


def test_the_versions_are_those_of_the_lock():
    with open(f"{REPOSITORY}/requirements.lock") as stream:
        locked = [line.split(" ")[0] for line in stream if "==" in line]
    package = build_package()
    pins = package.pins.decode()
    assert [line.split(" ")[0] for line in pins.splitlines() if "==" in line] == locked
    assert len(locked) > 100
    assert "--hash" not in pins
    assert "\\" not in pins
    assert package.pins_name == f"pins-{hashlib.sha256(package.pins).hexdigest()[:12]}.txt"


def test_pip_installs_it_with_the_trainers_extra(tmp_path):
    package = build_package()
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / package.name).write_bytes(package.content)
    (folder / package.pins_name).write_bytes(package.pins)
    site = tmp_path / "site"
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site))
    pinned = ("--constraint", str(folder / package.pins_name))
    install = [sys.executable, "-m", "pip", "install", *flags, *pinned, f"{folder / package.name}[train]"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not provide" not in done.stderr
    program = f"""
import sys; sys.path.insert(0, {str(site)!r})
import runpy, trainer, configs.recipe
assert trainer.__file__.startswith({str(site)!r})
assert configs.recipe.recipe_names()
sys.argv = ["trainer.task", "--help"]
runpy.run_module("trainer.task", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--train_data_paths" in done.stdout


def test_without_a_checkout_it_says_what_to_do(tmp_path):
    shutil.copy(f"{REPOSITORY}/pyproject.toml", tmp_path)
    with pytest.raises(
        InputError, match=r"(setup\.py|configs|cloud) is not there\. Run hugs_train\.sh from a checkout"
    ):
        build_package(str(tmp_path))
