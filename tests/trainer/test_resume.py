"""A run that was killed, at whatever moment, goes on and ends with the model of an undisturbed one, bit for bit."""

from __future__ import annotations

import dataclasses
import functools
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from tests.support.embedded_clusters import in_views
from tests.support.programs import start_program
from tests.trainer.training.test_loop import clusters
from trainer.data.embeddings import StreamedEmbeddings
from trainer.options import TrainingOptions
from trainer.training import checkpoints
from trainer.training.checkpoints import Checkpoints, RunState, Saving
from trainer.training.head import build_head, head_digest
from trainer.training.loop import train_head
from trainer.training.optimizers import make_optimizer

PROGRAM = "import sys; from tests.trainer.test_resume import run_to_the_end; run_to_the_end(sys.argv[1])"


def options_for(folder: str, **changes) -> TrainingOptions:
    options = TrainingOptions(
        train_data_paths=("t",),
        eval_data_paths=("e",),
        output_path=str(folder),
        hidden_units=64,
        max_steps=105,
        eval_every_steps=7,
        batch_size=30,
        l2=1e-4,
    )
    return dataclasses.replace(options, **changes)


def run_to_the_end(folder: str) -> None:
    """What a process does: saves as often as it can, so that most of its time a save is under way."""
    result = train_head(
        clusters(100, 0),
        clusters(50, 1),
        options_for(folder),
        on_progress=lambda step, loss, measures: print(f"step {step}", flush=True),
        saving=Saving(resumes=True, every_sec=0),
    )
    print(json.dumps([head_digest(result.head), [vars(point) for point in result.history]]), flush=True)


def start(folder):
    return start_program(["-c", PROGRAM, str(folder)], tensorflow=True)


def test_killed_processes_and_the_one_that_goes_on_give_the_model_of_an_undisturbed_run(tmp_path):
    for until in (30, 75):
        process = start(tmp_path / "killed")
        for line in process.stdout:
            if line == f"step {until}\n":
                process.kill()
                break
        assert process.wait() == -9
        process.communicate()
    done = start(tmp_path / "killed")
    printed, said = done.communicate()
    assert done.returncode == 0, said
    assert "going on from the checkpoint of step" in said
    digest, history = json.loads(printed.splitlines()[-1])
    undisturbed = train_head(clusters(100, 0), clusters(50, 1), options_for(tmp_path / "undisturbed"))
    assert digest == head_digest(undisturbed.head)
    assert history == [vars(point) for point in undisturbed.history]
    for name in ("best", "last"):  # Nothing half-written is left.
        kept = sorted(os.listdir(tmp_path / "killed" / "checkpoints" / name))
        assert len(kept) == len(os.listdir(tmp_path / "undisturbed" / "checkpoints" / name)) == 3, kept


class Stop(Exception):
    pass


def stop_at(last: int):
    def on_progress(step, loss, measures):
        if step == last:
            raise Stop

    return on_progress


def streamed(data):
    """The same examples as if they did not fit in memory."""
    array = data.embeddings.array
    parts = np.split(np.arange(len(array)), [30, 41, 77])

    def read(order):
        for number in order:
            yield parts[number], array[parts[number]]

    embeddings = StreamedEmbeddings(
        read, num_parts=4, shape=array.shape, statistics=data.embeddings.feature_statistics(), pool_rows=25
    )
    return dataclasses.replace(data, embeddings=embeddings, source="shards")


@pytest.mark.parametrize(
    ("optimizer", "prepared"), [("adamw", lambda data: data), ("rmsprop", streamed), ("adam", in_views)]
)
def test_optimizers_streams_and_views_go_on_where_they_were(tmp_path, optimizer, prepared):
    train, evaluation = prepared(clusters(100, 0)), clusters(50, 1)
    options = options_for(tmp_path, optimizer=optimizer, max_steps=60)
    fit = functools.partial(train_head, train, evaluation, options, say=lambda words: None)
    undisturbed = fit(saving=Saving(every_sec=0))
    with pytest.raises(Stop):
        fit(saving=Saving(every_sec=0), on_progress=stop_at(38))
    resumed = fit(saving=Saving(resumes=True, every_sec=0))
    assert resumed.resumed_step == 35
    assert head_digest(resumed.head) == head_digest(undisturbed.head)
    assert resumed.history == undisturbed.history


def test_the_curves_have_every_evaluation_once(tmp_path):
    data = clusters(100, 0), clusters(50, 1)
    options = options_for(tmp_path, max_steps=30, eval_every_steps=10)
    with pytest.raises(Stop):
        train_head(*data, options, saving=Saving(every_sec=0), on_progress=stop_at(25))
    train_head(*data, options, saving=Saving(resumes=True))
    (event_file,) = tf.io.gfile.glob(f"{tmp_path}/logs/train/*")
    found = [
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(event_file)
        for value in event.summary.value
    ]
    assert [step for tag, step in found if tag == "loss"] == [10, 20, 30]
    # The weights of earlier steps are not known any more.
    assert {step for tag, step in found if tag != "loss"} == {30}


def test_a_finished_run_given_again_trains_no_step(tmp_path):
    data = clusters(100, 0), clusters(50, 1)
    said, steps = [], []
    options = options_for(tmp_path, max_steps=30, early_stopping=1, learning_rate=0.3, eval_every_steps=3)
    first = train_head(*data, options, saving=Saving(resumes=True), say=said.append)
    assert not said
    again = train_head(
        *data, options, saving=Saving(resumes=True), say=said.append, on_progress=lambda *step: steps.append(step)
    )
    assert not steps
    assert "this training was finished before" in said[0]
    assert head_digest(again.head) == head_digest(first.head)
    assert (again.history, again.wall_sec, again.stopped_early) == (first.history, first.wall_sec, first.stopped_early)


def test_a_checkpoint_of_another_training_is_not_used_and_what_differs_is_said(tmp_path):
    data = clusters(100, 0), clusters(50, 1)
    train_head(*data, options_for(tmp_path, max_steps=10))
    said = []
    anew = train_head(
        clusters(100, 5),
        data[1],
        options_for(tmp_path, max_steps=10, dropout=0.25),
        saving=Saving(resumes=True),
        say=said.append,
    )
    assert anew.resumed_step == 0
    assert "dropout 0.5 then, 0.25 now; other training data" in said[0]


def test_a_damaged_checkpoint_is_not_used(tmp_path):
    data = clusters(100, 0), clusters(50, 1)
    options = options_for(tmp_path, max_steps=10)
    train_head(*data, options)
    for path in tf.io.gfile.glob(f"{tmp_path}/checkpoints/last/*.data*"):
        os.truncate(path, 100)
    said = []
    assert train_head(*data, options, saving=Saving(resumes=True), say=said.append).resumed_step == 0
    assert "cannot be read" in said[0]


def test_a_checkpoint_of_another_version_is_not_used(tmp_path, monkeypatch):
    data = clusters(100, 0), clusters(50, 1)
    options = options_for(tmp_path, max_steps=5)
    with monkeypatch.context() as before:
        before.setattr(checkpoints, "_FORMAT", 1)
        train_head(*data, options)
    said = []
    assert train_head(*data, options, saving=Saving(resumes=True), say=said.append).resumed_step == 0
    assert said == [
        f"the checkpoint in {tmp_path}/checkpoints/last is of another version of the trainer, so training starts anew"
    ]


def test_saving_takes_no_more_than_its_share_of_the_time(tmp_path):
    now = 0.0
    size = {"embedding_size": 4, "num_classes": 2, "hidden_units": 0}
    head = build_head(**size, seed=0, mean_and_variance=None)

    def clock():  # Every look at it takes two seconds.
        nonlocal now
        now += 2
        return now

    optimizer = make_optimizer("sgd", [v.value for v in head.trainable_variables], learning_rate=1, weight_decay=0)
    kept = Checkpoints(str(tmp_path), {}, head=head, best_head=head, optimizer=optimizer, clock=clock)
    assert kept.due
    kept.save(RunState(step=1))
    saved = now
    while not kept.due:
        pass
    assert now - saved == pytest.approx(100, abs=4)  # 2 seconds are 2 percent of it.


def test_a_checkpoint_in_a_folder_that_was_given_relatively_is_gone_on_from_wherever_it_is_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, evaluation = clusters(60, 0), clusters(30, 1)
    train_head(train, evaluation, options_for("some/run", max_steps=21), saving=Saving(resumes=True, every_sec=0))
    (tmp_path / "some" / "run").rename(tmp_path / "moved")
    for folder in ("moved", str(tmp_path / "moved")):
        again = train_head(
            train, evaluation, options_for(folder, max_steps=21), saving=Saving(writes=False, resumes=True)
        )
        assert again.resumed_step == 21


def test_a_folder_whose_name_is_a_pattern_keeps_its_checkpoints(tmp_path):
    # TensorFlow finds no checkpoint in such a folder, and all but the latest checkpoint is removed.
    train, evaluation, folder = clusters(60, 0), clusters(30, 1), tmp_path / "photos [2023], *"
    train_head(train, evaluation, options_for(folder, max_steps=21), saving=Saving(resumes=True, every_sec=0))
    again = train_head(train, evaluation, options_for(folder, max_steps=21), saving=Saving(resumes=True, writes=False))
    assert again.resumed_step == 21
