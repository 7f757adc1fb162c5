"""Commands that are printed run as printed, wherever the user is and whatever is installed."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from configs import printed_commands
from configs.printed_commands import PROGRAMS, program_command, script_command, tool_command
from configs.source_files import REPOSITORY


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment in a folder with a space in its name: its bin/, in which an interpreter lies."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("PYTHON", raising=False)
    return folder


def add_program(folder: pathlib.Path, name: str) -> None:
    (folder / name).write_text('#!/bin/sh\necho "$0" "$@"\n')
    (folder / name).chmod(0o755)


def run(command: str, **variables: str) -> str:
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_of_the_environment_is_named_with_its_path(environment, tmp_path, monkeypatch):
    add_program(environment, "hugs")
    monkeypatch.chdir("/usr")
    assert program_command("embed", "--wait") == shlex.join([str(environment / "hugs"), "embed", "--wait"])
    monkeypatch.chdir(tmp_path)
    assert program_command("embed") == "'my env/bin/hugs' embed"
    assert run(program_command("embed", "a b")).endswith("hugs embed a b\n")


def test_in_an_active_environment_the_name_is_enough(environment, monkeypatch):
    add_program(environment, "hugs")
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert program_command("train") == "hugs train"
    monkeypatch.chdir(environment)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert program_command("train") == "./hugs train"


def test_the_command_of_another_environment_is_not_named(environment, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    add_program(other, "hugs")
    add_program(environment, "hugs")
    monkeypatch.setenv("PATH", f"{other}:/usr/bin:/bin")
    monkeypatch.chdir("/usr")
    assert program_command("embed").startswith(f"'{environment}/hugs'")


def test_where_nothing_is_installed_the_module_is_found(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(printed_commands, "DISTRIBUTION", "there-is-no-such-distribution")
    monkeypatch.chdir(REPOSITORY)
    assert program_command("ingest") == f"'{environment}/python' -m pipelines.ingest"
    monkeypatch.chdir(tmp_path)
    command = program_command("ingest", "--help")
    assert command == f"env PYTHONPATH={shlex.quote(REPOSITORY)} 'my env/bin/python' -m pipelines.ingest --help"


def test_a_script_is_named_from_the_current_folder_with_what_it_needs(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert script_command("hugs_train.sh", "my data") == "./hugs_train.sh 'my data'"
    monkeypatch.chdir(tmp_path)
    assert script_command("hugs_train.sh") == shlex.quote(os.path.join(REPOSITORY, "hugs_train.sh"))
    monkeypatch.setenv("PYTHON", "/opt/my env/python")
    assert script_command("hugs_train.sh", RECIPE="flowers").startswith("PYTHON='/opt/my env/python' RECIPE=flowers ")


def test_words_survive_the_shell(environment, monkeypatch):
    monkeypatch.chdir(environment)
    add_program(environment, "tensorboard")
    words = ["photos [2023]", "a,b", "it's", "😀", "$HOME", "*", ""]
    assert run(tool_command("tensorboard", *words)) == " ".join(["./tensorboard", *words]) + "\n"


def test_in_a_deleted_folder_there_is_a_command_all_the_same(environment, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    add_program(environment, "hugs")
    assert program_command("embed") == f"'{environment}/hugs' embed"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_is_there(name):
    module, _ = PROGRAMS[name]
    assert pathlib.Path(REPOSITORY, *module.split(".")).with_suffix(".py").is_file()
