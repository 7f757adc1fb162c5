"""The note of a run says how it ended, whatever ends it, and is never worth an error."""

import json
import pathlib
import subprocess
import sys

import pytest

from configs.errors import InputError
from preprocess.machine.run_note import NOTE_NAME, RunNote, noted, read_note
from preprocess.storage.base import LocalStorage

ROOT = pathlib.Path(__file__).parents[3]


def note_in(folder, *words):
    return RunNote(str(folder), LocalStorage(), module="pipelines.embed", arguments=words, facts={"rows": 7})


def end_of(folder):
    ended = read_note(str(folder), LocalStorage()).get("ended")
    return ended and (ended["how"], ended["message"])


def test_a_note_that_began_and_did_not_end(tmp_path):
    note_in(tmp_path, "--a", "1").begin()
    found = read_note(str(tmp_path), LocalStorage())
    assert (found["module"], found["arguments"], found["rows"]) == ("pipelines.embed", ["--a", "1"], 7)
    assert "ended" not in found


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (InputError("wrong\ninput"), ("error", "wrong input")),
        (KeyboardInterrupt(), ("signal", "SIGINT")),
        (ValueError("of ours"), ("bug", "ValueError: of ours")),
    ],
)
def test_the_end_is_noted_and_raised(tmp_path, error, end):
    with pytest.raises(type(error)), noted(note_in(tmp_path)):
        raise error
    assert end_of(tmp_path) == end


def test_a_run_that_lost_its_folder_writes_nothing(tmp_path):
    with pytest.raises(PermissionError), noted(note_in(tmp_path), lost=PermissionError):
        (tmp_path / NOTE_NAME).write_text("another run's")
        raise PermissionError
    assert (tmp_path / NOTE_NAME).read_text() == "another run's"


def test_sigterm_is_noted_and_ends_the_process_as_ever(tmp_path):
    script = (
        "import os, signal, sys, time; from tests.preprocess.machine.test_run_note import note_in, noted\n"
        "with noted(note_in(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -15
    assert end_of(tmp_path) == ("signal", "SIGTERM")


def test_the_end_needs_no_new_room(tmp_path):
    note = note_in(tmp_path)
    note.begin()
    size = (tmp_path / NOTE_NAME).stat().st_size
    note.end("error", "no room")
    assert (tmp_path / NOTE_NAME).stat().st_size == size
    assert end_of(tmp_path) == ("error", "no room")


def test_storage_that_fails_stops_nobody(tmp_path):
    (tmp_path / "file").touch()
    with noted(note_in(tmp_path / "file")):
        pass
    note_in(tmp_path / "file").forget()
    assert read_note(str(tmp_path / "file"), LocalStorage()) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"module": 1, "arguments": []}', '{"module": "m", "arguments": [1]}']
)
def test_what_is_no_note(tmp_path, text):
    (tmp_path / NOTE_NAME).write_text(text)
    assert read_note(str(tmp_path), LocalStorage()) is None


def test_it_keeps_no_secret(tmp_path):
    note_in(tmp_path, "--a", "1", "--s3_secret_access_key", "hidden", "--token=hidden", "--b", "2").begin()
    assert json.loads((tmp_path / NOTE_NAME).read_text())["arguments"] == ["--a", "1", "--b", "2"]
