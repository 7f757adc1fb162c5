"""The batches of the training loop: shuffled, prepared for their steps, in groups of steps, from any step on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import Shuffle
from trainer.options import TrainingOptions
from trainer.training.distributed import Cluster
from trainer.training.inputs import TrainingInputs

# The size of a step group. So many steps hide the cost of a call, and the memory is small compared with the network.
_GROUP_BYTES = 24 << 20
# Bytes. TensorFlow's own memory is aligned so (EIGEN_MAX_ALIGN_BYTES), and its kernels take that for granted.
_ALIGNMENT = 64


def group_steps(step: int, *, batch_bytes: int, max_steps: int, eval_every_steps: int) -> int:
    """The size of the step group after `step` steps: it ends at the next evaluation, or earlier to save memory."""
    until_evaluation = min(eval_every_steps - step % eval_every_steps, max_steps - step)
    return max(1, min(until_evaluation, _GROUP_BYTES // batch_bytes))


def _step_group(
    train: EmbeddingDataset,
    shuffle: Shuffle,
    steps: range,
    batch: int,
    cluster: Cluster,
    inputs: TrainingInputs,
) -> tuple[tf.Tensor, tf.Tensor]:
    # This is a separate function so that its arrays are freed before the next ones are made.
    size, num_classes, count = train.embeddings.shape[1], len(train.labels), len(steps)
    embeddings = aligned_empty(count * batch, size)
    targets = train.targets(shuffle.fill(embeddings))
    share = batch // cluster.count
    mine = slice(cluster.index * share, (cluster.index + 1) * share)
    of_steps = embeddings.reshape(count, batch, size)
    for step, of_step in zip(steps, of_steps, strict=True):
        inputs.prepare(of_step[mine], step=step, worker=cluster.index)
    return (
        # A worker among several gets a part, which must be copied together.
        tensor_of(of_steps) if cluster.count == 1 else tf.constant(of_steps[:, mine]),
        tf.constant(targets.reshape(count, batch, num_classes)[:, mine]),
    )


def aligned_empty(rows: int, columns: int) -> np.ndarray:
    """A float32 array [rows, columns] whose memory begins where TensorFlow's kernels want it."""
    num_bytes = 4 * rows * columns
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(np.float32).reshape(rows, columns)


def tensor_of(array: np.ndarray) -> tf.Tensor:
    """A tensor with the memory of an array from `aligned_empty`, which must not be changed afterwards.

    `tf.constant` copies an array twice, which took 0.15 ms of a core for each step of a default head.
    """
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def batches(
    train: EmbeddingDataset, options: TrainingOptions, first_step: int, cluster: Cluster, inputs: TrainingInputs
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The batches of each step group: inputs float32 [k, batch, size], targets float32 [k, batch, classes].

    The first group begins after `first_step` steps; a step group must have ended there. Each worker gets its share of
    a batch. `inputs` makes it of the embeddings.
    """
    examples, size = train.embeddings.shape
    share = min(cluster.share_of(options.batch_rows(examples)), max(1, examples // cluster.count))
    batch = cluster.count * share
    num_classes = len(train.labels)
    num_steps = options.num_steps(examples)

    shuffle = train.embeddings.shuffled(options.seed)
    step = 0
    skipped: list[int] = []
    while step < num_steps:
        count = group_steps(
            step,
            batch_bytes=4 * batch * (size + num_classes),
            max_steps=num_steps,
            eval_every_steps=options.eval_every_steps,
        )
        steps = range(step, step + count)
        step += count
        if step <= first_step:
            skipped.append(count * batch)
            continue
        if skipped:
            shuffle.skip(skipped)
            skipped.clear()
        yield _step_group(train, shuffle, steps, batch, cluster, inputs)
