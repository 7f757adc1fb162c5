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
from tests.support.read_for_training import read_for_training


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
    # A photo of the training list that is in the evaluation list with another label.
    with open("my data [1], all/train.csv", newline="") as stream:
        uri, label = next(csv.reader(stream))
    other = {"it's a hug": "not a hug", "not a hug": "it's a hug"}[label]
    with open("my data [1], all/eval.csv", "a", newline="") as stream:
        csv.writer(stream).writerow([uri, other])
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
    check_what_follows_twins(capsys)
    check_what_follows_next(photos, capsys)
    report = json.loads(pathlib.Path("my data [1], all/preproc/_test/report.json").read_text())
    assert report["backbone"]["seed"] == 3
    assert report["shared_with"][0]["prefix"].endswith("my data [1], all/preproc/train")


def check_the_end_of_the_demo(photos, capsys, monkeypatch):
    """What `make demo` prints last, for the model that is there."""
    photo = f"{photos}/not a hug/3.jpg"
    job = pathlib.Path("my data [1], all")
    commands = list(demo.next_steps(job, photo).values())
    served = []
    monkeypatch.setattr(serve, "_serve", lambda options, page, listener: served.append(options) or 0)
    for words in map(words_of, commands):
        run(*words, *(["--port", "0"] if words[0] == "serve" else []))
    assert [options.model_dir for options in served] == [("my data [1], all/training/model",)]
    assert capsys.readouterr().out.startswith(photo)
    assert all((job / name / f"{name}.html").is_file() for name in ("audit", "twins", "map"))
    run(*words_of(next(command for command in demo.next_steps(job, photo).values() if "--overwrite" in command)))


def check_what_follows_an_audit(capsys):
    """The page of an audit downloads corrections.csv; then both printed commands run."""
    sets = ",".join(f"my data [1], all/preproc/{name}" for name in ("train", "eval"))
    capsys.readouterr()
    run("audit", "--data_paths", sets, "--output_path", "my audit, 2")
    printed = capsys.readouterr().out
    with open("my audit, 2/suspects.csv", newline="") as stream:
        suspect = next(csv.DictReader(stream))
    train, *relabels = (words_of(printed_command(printed, start)) for start in ("then:", "or:", "and:"))
    with open("corrections.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_uri", "image_sha256", "action", "label"])
        writer.writerow([suspect["image_uri"], suspect["image_sha256"], "change", suspect["proposed_label"]])
    assert "--test_data_paths" in train  # It is beside the sets, so the training measures what the first one did.
    run(*train, "--max_steps", "1", "--no-compare_corrections")
    assert os.path.isdir("my audit, 2/training/model")
    capsys.readouterr()
    for relabel in relabels:
        run(*relabel)
    assert capsys.readouterr().out.count("1 label changed") == 1
    assert all(os.path.isfile(f"my data [1], all/{name}-corrected.csv") for name in ("train", "eval"))


def check_what_follows_twins(capsys):
    """Sets that share photos: a training without them, and the audit of copies with different labels."""
    sets = ",".join(f"my data [1], all/preproc/{name}" for name in ("train", "eval", "test"))
    capsys.readouterr()
    run("twins", "--data_paths", sets, "--output_path", "my twins, 2")
    printed = capsys.readouterr().out
    train, audit = (words_of(printed_command(printed, start)) for start in ("next:", "labels:"))
    assert train[train.index("--train_data_paths") + 1] == "my data [1], all/preproc/train"
    assert "add --group_by 'my twins, 2/twins.csv' to the flags of `hugs ingest`" in printed
    assert {"train", "eval", "test"} <= set(read_for_training(train[1:]))
    run(*audit)
    assert os.path.isfile("my twins, 2/audit/audit.html")


def check_what_follows_next(photos, capsys):
    """Photos without labels: what the page saves goes into a training."""
    names = [f"{photos}/pool-{number}.jpg" for number in range(3)]
    random = np.random.RandomState(1)
    for name in names:
        Image.fromarray(random.randint(0, 256, (40, 30, 3), np.uint8)).save(name)
    pathlib.Path("pool.csv").write_text(
        "".join(f"{name}\n" for name in names).replace(photos, f'"{photos}').replace(".jpg", '.jpg"')
    )
    sets = "my data [1], all/preproc"
    run(
        *("embed", "--input_path", "pool.csv", "--input_dict", "my data [1], all/dict.txt"),
        *("--output_path", f"{sets}/pool", "--backbone", "tiny", "--weights", "random", "--seed", "3"),
    )
    capsys.readouterr()
    run("next", "--data_paths", f"{sets}/train,{sets}/pool", "--n", "2", "--output_path", "my next, 2")
    printed = capsys.readouterr().out
    with open("my next, 2/next.csv", newline="") as stream:
        chosen = next(csv.DictReader(stream))
    with open("labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["image_uri", "image_sha256", "action", "label"],
                [chosen["image_uri"], chosen["image_sha256"], "change", "not a hug"],
            ]
        )
    assert "eval" in read_for_training(words_of(printed_command(printed, "then:"))[1:])


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
