"""The command `hugs`: every program by one name."""

import pathlib
import subprocess
import sys
import tomllib

import pytest

from commands.hugs import main
from configs.errors import InputError
from configs.printed_commands import DISTRIBUTION, PROGRAMS, hugs_command, program_command

PROJECT = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def run(*words):
    command = [sys.executable, "-m", "commands.hugs", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_subcommand_is_a_program_that_knows_what_it_is_called(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {program_command(name)} ")
    wrong = run(name, "--no-such-flag")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert len(wrong.stderr.splitlines()) == 1
    assert f"`{program_command(name, '--help')}` lists the flags" in wrong.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_program_is_there_as_a_module(name):
    module, _ = PROGRAMS[name]
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {program_command(name)} ")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_it_lists_what_it_can_do(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {hugs_command()} SUBCOMMAND ")
    assert all(f"  {name} " in printed for name in PROGRAMS)


def test_an_unknown_subcommand_is_one_line():
    with pytest.raises(InputError, match=r"there is no subcommand 'trian'\. Did you mean 'train'\?"):
        main(["trian"])
    done = run("trian")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"`{hugs_command('--help')}` lists them." in done.stderr


def test_a_wrong_path_is_one_line_as_with_the_module(tmp_path):
    done = run("ingest", "--image_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr


def test_it_says_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out in (f"hugs {PROJECT['version']}\n", "hugs (not installed; run from its source)\n")


def test_the_name_is_that_of_the_distribution_and_its_command():
    assert PROJECT["name"] == DISTRIBUTION
    assert PROJECT["scripts"] == {"hugs": "commands.hugs:run"}


def test_the_installed_command_works():
    command = pathlib.Path(sys.prefix) / "bin" / "hugs"
    if not command.exists():
        pytest.skip("the project is not installed: `make setup` does")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"hugs {PROJECT['version']}\n")


def test_an_environment_of_an_earlier_version_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "serving.serve", None)
    monkeypatch.delitem(sys.modules, "serving", raising=False)
    with pytest.raises(InputError, match="'serving.serve'.*`make setup`") as caught:
        main(["serve", "--model_dir", "m"])
    assert "\n" not in str(caught.value)


def test_a_library_that_is_missing_is_no_reason_to_speak_of_the_environment(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr("importlib.import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match="yaml"):
        main(["embed"])
