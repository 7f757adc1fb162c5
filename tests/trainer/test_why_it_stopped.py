"""What stopped a training, as `hugs why` tells it in its first line, and the command that goes on."""

import os
import pathlib
import re
import shlex
import time

import pytest

from configs.errors import InputError
from configs.printed_commands import program_words
from pipelines import why
from pipelines.diagnosis import look, places
from preprocess.machine import run_note
from tests.support.programs import start_program
from trainer import task
from trainer.training.progress import TrainingProgress

ROOT = pathlib.Path(__file__).parents[2]
# A training whose network is not loaded, since it is stopped before it is exported.
_PROGRAM = """
import sys
from trainer import task
task._load_backbone = lambda record_set, weights: (None, record_set.manifest.backbone)
task.main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """However slow this machine is, nothing is left out for lack of time."""
    monkeypatch.setattr(look, "BUDGET_SEC", 600.0)
    monkeypatch.setattr(places, "SEARCH_SEC", 600.0)


@pytest.fixture
def words(colour_sets, without_network, tmp_path, monkeypatch):
    """The command line of a training in the current folder."""
    monkeypatch.chdir(tmp_path)
    sets = [os.path.relpath(path) for path in colour_sets]
    return ["--train_data_paths", sets[0], "--eval_data_paths", sets[1], "--output_path", "out/training"]


@pytest.fixture
def ask(capsys):
    def ask(what):
        capsys.readouterr()
        assert why.main([what]) == 0
        text = capsys.readouterr().out
        print(f"FIRST LINE: {text.splitlines()[0]}")
        return text.splitlines()[0], text

    return ask


def give(text):
    """Runs the printed command that goes on, in this process."""
    line = next(line for line in text.splitlines() if line.strip().startswith("to go on"))
    given = shlex.split(line.strip().removeprefix("to go on"))
    start = program_words("train")
    assert given[: len(start)] == start
    return task.main(given[len(start) :])


def test_a_training_that_was_killed(words, ask):
    command = ["-c", _PROGRAM, *words, "--max_steps", "100000000"]
    process = start_program(command, {"PYTHONPATH": str(ROOT)}, cwd=os.getcwd(), tensorflow=True)
    while not pathlib.Path("out/training/checkpoints/last/checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    first, _ = ask("out/training")
    assert re.search(rf"is being written at this moment, by trainer\.task, process {process.pid} of", first), first
    process.kill()
    process.communicate()
    first, text = ask("out/training")
    assert re.search(
        "is not finished: its process is gone without a word, as after kill -9, .* not written down$", first
    )
    assert re.search(r"kept +the state after step [\d,]+", text)
    assert "--max_steps 100000000" in text


def test_ctrl_c(words, ask, monkeypatch):
    def stop(self, step, loss, measures):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            task.main([*words, "--max_steps", "30"])
    first, text = ask("out/training")
    assert first == "out/training: the training is not finished: it was stopped by Ctrl-C (SIGINT)"
    assert give(text) == 0
    assert not list(pathlib.Path("out/training").glob(run_note.NOTE_NAME))
    first, _ = ask("out/training")
    assert re.search(r"the training is finished: \d+\.\d % of 30 examples of the eval set right", first)


def test_a_training_that_diverged(words, ask):
    with pytest.raises(InputError, match="training diverged"):
        task.main([*words, "--max_steps", "30", "--learning_rate", "1e30", "--optimizer", "sgd"])
    first, _ = ask("out/training")
    assert re.search(
        r"out/training: the training \S+ .*The loss is \S+ at step \d+: training diverged\. Lower", first
    ), first


def test_a_training_on_an_unfinished_set(words, ask):
    manifest = pathlib.Path("preproc/_train/manifest.json")
    manifest.unlink()
    with pytest.raises(InputError, match="is incomplete"):
        task.main([*words, "--max_steps", "30"])
    first, text = ask("out/training")
    assert (
        "out/training: the training was refused or stopped: --train_data_paths: the record set preproc/train is"
        in first
    )
    assert shlex.join(words) in text


def test_a_refused_run_does_not_write_over_the_note_of_one_that_runs(words):
    pathlib.Path("out/training").mkdir(parents=True)
    pathlib.Path("out/training/.lock").touch()
    pathlib.Path("preproc/_train/manifest.json").unlink()
    with pytest.raises(InputError, match="is incomplete"):
        task.main([*words, "--max_steps", "30"])
    assert not pathlib.Path("out/training", run_note.NOTE_NAME).exists()


def test_an_evaluation_photo_that_was_answered_wrongly(words, ask):
    assert task.main([*words, "--max_steps", "1", "--learning_rate", "1e-9", "--write_predictions"]) == 0
    lines = pathlib.Path("out/training/predictions.csv").read_text().splitlines()
    wrong = next(line.split(",") for line in lines if line.split(",")[4] == "0")
    first, _ = ask(wrong[1])
    words = f"{wrong[1]}: the model of out/training takes it for '{wrong[3]}' with the score {float(wrong[6]):.2f}, "
    assert first.startswith(words)
    assert f"and its label is '{wrong[2]}'" in first
