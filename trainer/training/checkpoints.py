"""Checkpoints of a run: the best head, for the user, and the last state, from which a killed run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from configs.errors import cause_in_one_line
from configs.option import definition_of
from preprocess.storage.base import LocalStorage, write_file
from trainer.data.dataset import EmbeddingDataset
from trainer.options import TrainingOptions
from trainer.storage.tensorflow_paths import path_for_tensorflow
from trainer.storage.working_folder import working_folder
from trainer.training.optimizers import Optimizer
from trainer.training.precision import training_precision

_FORMAT = 2
# The largest share of the training time that saving may add.
_SAVING_SHARE = 0.02
# This is shorter than the start of the program, so a kill costs little more than a new start.
_MIN_SAVE_EVERY_SEC = 1.0
_NAMES = ("best", "last")
# The file in which TensorFlow stores the name of the latest checkpoint in a folder.
_LATEST_NAME = "checkpoint"
_STATE_KEY = "state/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """One evaluation during training; `train_loss` is the mean over the steps since the evaluation before.

    `train_loss` is the loss that training minimizes: with dropout, class weights, smoothing and penalty.
    """

    step: int
    train_loss: float
    eval_loss: float
    eval_accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saving:
    """How a run uses the checkpoints and logs in its folders.

    Attributes:
      writes: whether the run writes checkpoints and logs. One of many fits does not.
      resumes: whether the run goes on from the checkpoint `last`, if that has the same data and options.
      every_sec: the least number of seconds between two saves of `last`; None saves as often as costs almost no time.
    """

    writes: bool = True
    resumes: bool = False
    every_sec: float | None = None


NO_SAVING = Saving(writes=False)


@dataclasses.dataclass(kw_only=True)
class RunState:
    """The progress of a run.

    Attributes:
      step: the number of finished steps.
      history: the evaluations so far.
      best: the evaluation with the lowest loss; None before the first evaluation.
      losses: the losses of the batches since the last evaluation.
      wall_sec: the seconds spent on training so far, in all processes that took part.
      finished: whether the run is finished.
    """

    step: int = 0
    history: list[EvaluationPoint] = dataclasses.field(default_factory=list)
    best: EvaluationPoint | None = None
    losses: list[float] = dataclasses.field(default_factory=list)
    wall_sec: float = 0.0
    finished: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunState:
        """Reads `dataclasses.asdict` of a state."""
        points = [EvaluationPoint(**point) for point in data.pop("history")]
        best = data.pop("best")
        return cls(history=points, best=best and EvaluationPoint(**best), **data)


def run_definition(train: EmbeddingDataset, evaluation: EmbeddingDataset, options: TrainingOptions) -> dict[str, Any]:
    """Everything that decides the result of a run. A run does not use a checkpoint with another definition."""
    return {
        **definition_of(options, "model"),
        "steps": options.num_steps(len(train)),
        "label_mode": train.label_mode,
        "training_precision": training_precision(options),
        "training data": train.digest(),
        "evaluation data": evaluation.digest(),
    }


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    different = [name for name in sorted({*stored, *wanted}) if stored.get(name) != wanted.get(name)]
    return "; ".join(
        f"other {name}" if name.endswith(" data") else f"{name} {stored.get(name)} then, {wanted.get(name)} now"
        for name in different
    )


def _latest(folder: str) -> str | None:
    """The prefix of the latest whole checkpoint in a folder; None if there is none."""
    with path_for_tensorflow(folder) as path:
        latest = tf.train.latest_checkpoint(path)
    return None if latest is None else os.path.join(folder, os.path.basename(latest))


class Checkpoints:
    """Keeps `best` (the head) and `last` (the whole state of a run) in a folder.

    Each of them is one checkpoint. A new checkpoint replaces it only when the new one is complete and on the disk. So a
    kill or a power cut at any moment leaves a checkpoint from which a run can go on. If the folder is in a bucket, both
    also lie on a local disk during the run: 4 and 16 MB for a default head.
    """

    def __init__(
        self,
        folder: str,
        definition: Mapping[str, Any],
        *,
        head: keras.Model,
        best_head: keras.Model,
        optimizer: Optimizer,
        save_every_sec: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Changes nothing yet.

        Args:
          folder: the folder of both checkpoints.
          definition: JSON, from `run_definition`.
          head: the head in training.
          best_head: the head with the weights of the best evaluation.
          optimizer: the optimizer of `head`.
          save_every_sec: the least number of seconds between two saves of `last`; None saves as often as costs almost
            no time.
          clock: gives seconds; its start does not matter.
        """
        self._folder = working_folder(folder, flag="checkpoint_dir")
        self._folders = {name: os.path.join(self._folder.local, name) for name in _NAMES}
        # The same form as a definition that was read from a file.
        self._definition = json.loads(json.dumps(definition))
        self._state = tf.Variable("", dtype=tf.string)
        self._checkpoints = {
            "best": tf.train.Checkpoint(head=best_head),
            "last": tf.train.Checkpoint(
                head=head,
                best_head=best_head,
                optimizer=optimizer,
                state=self._state,
            ),
        }
        self._saved_best_step = -1
        self._clock = clock
        self._save_every_sec = save_every_sec
        self._wait_sec = _MIN_SAVE_EVERY_SEC if save_every_sec is None else save_every_sec
        self._last_save = clock()

    def restore(self, say: Callable[[str], None]) -> RunState | None:
        """Sets head, optimizer and best head to their state in the last checkpoint.

        Args:
          say: gets a sentence if there is a checkpoint that cannot be used.

        Returns:
          The state of that run; None if there is no checkpoint with this definition. In that case nothing is changed.
        """
        folder = posixpath.join(self._folder.path, "last")
        self._folder.fetch("last")
        try:
            path = _latest(self._folders["last"])
            if path is None:
                return None
            with path_for_tensorflow(path) as readable:
                reader = tf.train.load_checkpoint(readable)
                # Reads everything once, so that damage is found before anything is changed.
                tensors = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
            stored = json.loads(tensors[_STATE_KEY])
            if stored["format"] != _FORMAT:
                say(f"the checkpoint in {folder} is of another version of the trainer, so training starts anew")
                return None
            if differences := _differences(stored["definition"], self._definition):
                say(f"the checkpoint in {folder} is of another training ({differences}), so training starts anew")
                return None
            state = RunState.from_json(stored["state"])
        except (tf.errors.OpError, ValueError, LookupError, TypeError, RuntimeError) as error:
            reason = cause_in_one_line(error)
            say(f"the checkpoint in {folder} cannot be read ({reason[:200]}), so training starts anew")
            return None
        with path_for_tensorflow(path) as readable:
            self._checkpoints["last"].restore(readable).assert_consumed()
        for name in _NAMES:
            self._tidy(name)
        # `best` is not written again under the same name: during the write, no complete checkpoint would exist.
        best = _latest(self._folders["best"])
        if best is not None and state.best is not None and best == self._path("best", state.best.step):
            self._saved_best_step = state.best.step
        return state

    def discard(self) -> None:
        """Removes the checkpoints of an earlier run. They would no longer match any metrics."""
        for name in _NAMES:
            self._folder.discard(name)

    def _path(self, name: str, step: int) -> str:
        return os.path.join(self._folders[name], f"ckpt-{step}")

    def _tidy(self, name: str) -> None:
        """Removes all but the latest checkpoint of a folder: older ones, and incomplete ones after a kill."""
        folder = self._folders[name]
        latest = _latest(folder)
        for entry in os.listdir(folder) if os.path.isdir(folder) else ():
            path = os.path.join(folder, entry)
            if entry != _LATEST_NAME and not (latest and path.startswith(f"{latest}.")):
                (shutil.rmtree if os.path.isdir(path) else os.remove)(path)

    def _write(self, name: str, step: int) -> None:
        """Writes a checkpoint, then the file that names it, and then removes the checkpoint before.

        TensorFlow's checkpoint manager is not used: it removes the old checkpoint at a time when the new one may not be
        on the disk yet.

        Raises:
          InputError: the disk failed; the checkpoint before still exists.
        """
        with self._folder.writing():
            self._write_files(name, step)

    def _write_files(self, name: str, step: int) -> None:
        checkpoint, path = self._checkpoints[name], self._path(name, step)
        checkpoint.save_counter.assign_add(1)  # The checkpoint object that restores has this counter too.
        checkpoint.write(path)
        self._folder.sync(name)
        # If the folder were relative, TensorFlow would look for the name in the current folder and not find it.
        folder = os.path.abspath(self._folders[name])
        latest = tf.compat.v1.train.generate_checkpoint_state_proto(folder, os.path.basename(path))
        write_file(LocalStorage(), os.path.join(self._folders[name], _LATEST_NAME), str(latest).encode())
        self._tidy(name)

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._clock() - self._last_save >= self._wait_sec

    def save(self, state: RunState) -> None:
        """Saves `last`, and also `best` if it has changed."""
        started = self._clock()
        if state.best is not None and state.best.step != self._saved_best_step:
            self._write("best", state.best.step)
            self._saved_best_step = state.best.step
        stored = {"format": _FORMAT, "definition": self._definition, "state": dataclasses.asdict(state)}
        self._state.assign(json.dumps(stored))
        self._write("last", state.step)
        # Readers find a checkpoint by the file that names it, so a bucket gets that file last.
        self._folder.send(rank=lambda name: int(os.path.basename(name) == _LATEST_NAME), exactly=_NAMES)
        self._last_save = self._clock()
        if self._save_every_sec is None:
            self._wait_sec = max(_MIN_SAVE_EVERY_SEC, (self._last_save - started) / _SAVING_SHARE)
