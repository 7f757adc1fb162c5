"""What the training loop is fed: the batches of several steps at a time, shuffled, from any step on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import Shuffle
from trainer.options import TrainingOptions
from trainer.training.distributed import Cluster

# Of a block: enough steps to hide the cost of a call, and little beside the network in the exported model.
_BLOCK_BYTES = 24 << 20


def block_steps(step: int, *, batch_bytes: int, max_steps: int, eval_every_steps: int) -> int:
    """How many steps to run in one call after `step` steps: up to the next evaluation, as far as memory allows."""
    until_evaluation = min(eval_every_steps - step % eval_every_steps, max_steps - step)
    return max(1, min(until_evaluation, _BLOCK_BYTES // batch_bytes))


def _block(
    train: EmbeddingDataset, shuffle: Shuffle, count: int, batch: int, cluster: Cluster
) -> tuple[tf.Tensor, tf.Tensor]:
    # A function of its own, so that the arrays are gone before the next ones are made.
    size, num_classes = train.embeddings.shape[1], len(train.labels)
    embeddings = np.empty((count * batch, size), np.float32)
    targets = train.targets(shuffle.fill(embeddings))
    share = batch // cluster.count
    mine = slice(cluster.index * share, (cluster.index + 1) * share)
    # Tensors here, in the thread that works ahead: making one copies.
    return (
        tf.constant(embeddings.reshape(count, batch, size)[:, mine]),
        tf.constant(targets.reshape(count, batch, num_classes)[:, mine]),
    )


def batches(
    train: EmbeddingDataset, options: TrainingOptions, first_step: int, cluster: Cluster
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Batches of several steps: embeddings float32 [k, batch, size], targets float32 [k, batch, classes].

    Begins after `first_step` steps, where a block must have ended. Of several workers each gets its share of a batch.
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
        count = block_steps(
            step,
            batch_bytes=4 * batch * (size + num_classes),
            max_steps=num_steps,
            eval_every_steps=options.eval_every_steps,
        )
        step += count
        if step <= first_step:
            skipped.append(count * batch)
            continue
        if skipped:
            shuffle.skip(skipped)
            skipped.clear()
        yield _block(train, shuffle, count, batch, cluster)
