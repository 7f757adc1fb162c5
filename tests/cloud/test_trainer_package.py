from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib

import pytest

from cloud.trainer_package import build_package
from configs.errors import InputError
from configs.source_files import REPOSITORY

with open(f"{REPOSITORY}/pyproject.toml", "rb") as project:
    VERSION = tomllib.load(project)["project"]["version"]


def test_the_same_source_is_the_same_file():
    package = build_package()
    assert package == build_package()
    assert package.content[4:8] == bytes(4)  # Where gzip says when.
    digest = hashlib.sha256(package.content).hexdigest()
    assert package.name == f"hugs-{VERSION}-{digest[:12]}.tar.gz"


def test_the_lock_goes_with_it_as_it_is():
    package = build_package()
    with open(f"{REPOSITORY}/requirements-trainer.lock", "rb") as stream:
        assert package.lock == stream.read()
    assert package.lock_name == f"requirements-{hashlib.sha256(package.lock).hexdigest()[:12]}.txt"


def test_pip_installs_it(tmp_path):
    package = build_package()
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / package.name).write_bytes(package.content)
    site = tmp_path / "site"
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site))
    install = [sys.executable, "-m", "pip", "install", *flags, str(folder / package.name)]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
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
