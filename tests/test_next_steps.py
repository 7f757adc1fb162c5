"""Each command that a program prints as the next step is run as it was printed, from photos to a prediction."""

import csv
import importlib
import json
import os
import pathlib
import shlex

import numpy as np
import pytest
from PIL import Image

from configs.printed_commands import PROGRAMS, program_words
from configs.source_files import REPOSITORY
from demo import run as demo
from serving import serve
from tests.support import tiny_network


def run(*words):
    """Runs a program of the project in this process, as `hugs` does."""
    module, _ = PROGRAMS[words[0]]
    assert not importlib.import_module(module).main(list(words[1:]))


def words_of(command):
    """The words of a printed command, as the shell takes them, with the subcommand first."""
    words = shlex.split(command)
    for name in PROGRAMS:
        start = program_words(name)
        if words[: len(start)] == start:
            return [name, *words[len(start) :]]
    raise AssertionError(f"{command!r} starts none of our programs")


def printed_command(text, name):
    return next(line.split(maxsplit=1)[1] for line in text.splitlines() if line.split(maxsplit=1)[:1] == [name])


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Photos of two classes, in folders with names as people give them, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    tiny_network.install(monkeypatch)
    folder = tmp_path / "photos [2023], of 😀"
    random = np.random.RandomState(0)
    for label in ("it's a hug", "not a hug"):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(random.randint(0, 256, (40, 30, 3), np.uint8)).save(folder / label / f"{number}.jpg")
    return folder.name


def test_from_photos_to_a_prediction(photos, capsys, monkeypatch):
    run(
        "ingest",
        "--image_dir",
        photos,
        "--output_dir",
        "my data [1], all",
        "--test_percent",
        "20",
        "--eval_percent",
        "30",
    )
    seen = []
    command = printed_command(capsys.readouterr().out, "next:") + " --backbone tiny --weights random --seed 3"
    while command is not None:
        words = words_of(command)
        seen.append(words[0])
        if words[0] == "train":
            words += ["--max_steps", "5"]
        run(*words)
        out = capsys.readouterr().out
        command = None if words[0] == "predict" else printed_command(out, "next" if words[0] == "train" else "next:")
    assert seen == ["embed", "embed", "embed", "train", "predict"]
    assert "a hug" in out
    check_the_end_of_the_demo(photos, capsys, monkeypatch)
    check_what_follows_an_audit(capsys)
    report = json.loads(pathlib.Path("my data [1], all/preproc/_test/report.json").read_text())
    assert report["backbone"]["seed"] == 3
    assert report["shared_with"][0]["prefix"].endswith("my data [1], all/preproc/train")


def check_the_end_of_the_demo(photos, capsys, monkeypatch):
    """What `make demo` prints last, for the model that is there."""
    photo = f"{photos}/not a hug/3.jpg"
    commands = demo.next_steps(pathlib.Path("my data [1], all", "training", "model"), photo).values()
    served = []
    monkeypatch.setattr(serve, "_serve", lambda options, page, listener: served.append(options) or 0)
    for words in map(words_of, commands):
        run(*words, *(["--port", "0"] if words[0] == "serve" else []))
    assert [options.model_dir for options in served] == [("my data [1], all/training/model",)]
    assert capsys.readouterr().out.startswith(photo)


def check_what_follows_an_audit(capsys):
    """The page of an audit downloads corrections.csv; then both printed commands run."""
    run("audit", "--data_paths", "my data [1], all/preproc/train", "--output_path", "my audit, 2")
    printed = capsys.readouterr().out
    with open("my audit, 2/suspects.csv", newline="") as stream:
        suspect = next(csv.DictReader(stream))
    with open("corrections.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_uri", "image_sha256", "action", "label"])
        writer.writerow([suspect["image_uri"], suspect["image_sha256"], "change", suspect["proposed_label"]])
    train, relabel = (words_of(printed_command(printed, start)) for start in ("then:", "or:"))
    run(*train, "--max_steps", "5")
    assert os.path.isdir("my audit, 2/training/model")
    run(*relabel)
    assert "1 label changed" in capsys.readouterr().out
    assert os.path.isfile("my data [1], all/train-corrected.csv")


def test_all_lists_at_once(photos, capsys, monkeypatch):
    run(
        "ingest",
        "--image_dir",
        photos,
        "--output_dir",
        "my data [1], all",
        "--test_percent",
        "0",
        "--eval_percent",
        "30",
    )
    out = capsys.readouterr().out
    command = out.partition("all lists at once: ")[2].strip()
    run(*words_of(command), "--backbone", "tiny", "--weights", "random")
    script, data_dir, job_dir = shlex.split(printed_command(capsys.readouterr().out, "next:"))
    assert os.path.realpath(script) == os.path.join(REPOSITORY, "hugs_train.sh")
    assert os.path.isdir(data_dir)
    assert os.path.isdir(job_dir)
