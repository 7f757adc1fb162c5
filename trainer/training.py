"""The training loop: batches from memory, evaluation now and then, the best and the last checkpoint."""

from __future__ import annotations

import dataclasses
import math
import posixpath
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.errors import InputError
from trainer.dataset import EmbeddingDataset
from trainer.evaluation import Measures, measure
from trainer.event_log import EventLog
from trainer.head import build_head, predict_logits, standardization
from trainer.options import TrainingOptions

# By loss and not by accuracy: it moves with every example, so less of it is luck, and it keeps the scores
# honest. On real ImageNet embeddings, accuracy / loss on images that chose nothing were 0.54 / 1.29 for it,
# 0.53 / 1.64 for the highest eval accuracy, 0.50 / 2.15 for the last step.
CHECKPOINT_RULE = "lowest eval loss"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """One evaluation during training; `train_loss` is the mean over the steps since the one before."""

    step: int
    train_loss: float
    eval_loss: float
    eval_accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A trained head.

    Attributes:
      head: with the weights of the best checkpoint.
      best: the evaluation of that checkpoint.
      history: all evaluations, in order of steps; the last one is of the last step.
      wall_sec: the training took this long.
    """

    head: keras.Model
    best: EvaluationPoint
    history: tuple[EvaluationPoint, ...]
    wall_sec: float


def batch_rows(num_examples: int, batch_size: int, *, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of positions: every example comes once before any comes again.

    Yields:
      int64, shape [min(batch_size, num_examples)].
    """
    size = min(batch_size, num_examples)
    waiting = np.zeros(0, np.int64)
    epoch = 0
    while True:
        while len(waiting) < size:
            # A generator an epoch: the order of an epoch can be had without going through those before it.
            order = np.random.default_rng([seed, epoch]).permutation(num_examples)
            waiting = np.concatenate([waiting, order])
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


class _Checkpoints:
    """Keeps the best and the last state (head, optimizer, step) under a folder; each replaces its elder."""

    def __init__(self, checkpoint_dir: str, head: keras.Model, optimizer: keras.optimizers.Optimizer):
        for name in ("best", "last"):  # Those of an earlier run would outlive their numbers.
            folder = posixpath.join(checkpoint_dir, name)
            if tf.io.gfile.isdir(folder):
                tf.io.gfile.rmtree(folder)
        self._step = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(head=head, optimizer=optimizer, step=self._step)
        self._managers = {
            name: tf.train.CheckpointManager(checkpoint, posixpath.join(checkpoint_dir, name), max_to_keep=1)
            for name in ("best", "last")
        }

    def save(self, name: str, step: int) -> None:
        self._step.assign(step)
        self._managers[name].save(checkpoint_number=step)


def _training_step(
    head: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    size, num_classes = head.input_shape[-1], head.output_shape[-1]
    variables = head.trainable_variables

    # A fixed signature, so that no batch makes TensorFlow trace the step again.
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, size], tf.float32),
            tf.TensorSpec([None, num_classes], tf.float32),
        ],
        autograph=False,
    )
    def step(embeddings: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = head(embeddings, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


def require_trainable(train: EmbeddingDataset) -> None:
    """Refuses a training set that teaches nothing.

    Raises:
      InputError: fewer than two classes have an example.
    """
    present = np.flatnonzero(train.label_sets().any(axis=0))
    if len(present) < 2:
        raise InputError(
            f"--train_data_paths: all {len(train)} labelled examples are {train.labels[present[0]]!r}; "
            "a classifier needs examples of at least two classes."
        )


def train_head(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    options: TrainingOptions,
    *,
    on_progress: Callable[[int, float, Measures | None], None] = lambda step, loss, measures: None,
) -> TrainingResult:
    """Trains a head. The same data, options and seed give the same weights on one machine.

    Writes `checkpoints/best`, `checkpoints/last` and the TensorBoard logs `logs/train`, `logs/eval` under
    `options.output_path`, replacing those of an earlier run.

    Args:
      train: to learn from.
      evaluation: to choose the checkpoint by.
      options: of the run.
      on_progress: called after each step with the number of steps done, the loss of its batch, and the
        evaluation if there was one.

    Raises:
      InputError: fewer than two classes to learn, or the loss is no longer a finite number.
    """
    require_trainable(train)
    started = time.monotonic()
    head = build_head(
        embedding_size=train.embeddings.shape[1],
        num_classes=len(train.labels),
        hidden_units=options.hidden_units,
        dropout=options.dropout,
        seed=options.seed,
        mean_and_variance=standardization(train.embeddings) if options.standardize else None,
    )
    optimizer = keras.optimizers.Adam(options.learning_rate)
    optimizer.build(head.trainable_variables)
    checkpoints = _Checkpoints(posixpath.join(options.output_path, "checkpoints"), head, optimizer)
    logs = {name: EventLog(posixpath.join(options.output_path, "logs", name)) for name in ("train", "eval")}
    run_step = _training_step(head, optimizer)

    history: list[EvaluationPoint] = []
    best: EvaluationPoint | None = None
    best_weights: list[Any] = []
    losses: list[float] = []
    batches = batch_rows(len(train), options.batch_size, seed=options.seed)
    for step in range(1, options.max_steps + 1):
        rows = next(batches)
        loss = float(run_step(train.embeddings[rows], train.targets(rows)))
        if not math.isfinite(loss):
            raise InputError(
                f"The loss is {loss} at step {step}: training diverged. Lower --learning_rate "
                f"({options.learning_rate:g})."
            )
        losses.append(loss)
        measures = None
        if step % options.eval_every_steps == 0 or step == options.max_steps:
            measures = measure(predict_logits(head, evaluation.embeddings), evaluation)
            point = EvaluationPoint(
                step=step,
                train_loss=float(np.mean(losses)),
                eval_loss=measures.loss,
                eval_accuracy=measures.accuracy,
            )
            losses.clear()
            history.append(point)
            logs["train"].write(step, loss=point.train_loss)
            logs["eval"].write(step, loss=point.eval_loss, accuracy=point.eval_accuracy)
            if best is None or point.eval_loss < best.eval_loss:
                best, best_weights = point, head.get_weights()
                checkpoints.save("best", step)
        on_progress(step, loss, measures)
    checkpoints.save("last", options.max_steps)
    for log in logs.values():
        log.close()
    assert best is not None  # The last step is always evaluated.
    head.set_weights(best_weights)
    return TrainingResult(head=head, best=best, history=tuple(history), wall_sec=time.monotonic() - started)
