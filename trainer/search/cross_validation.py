"""Cross-validation of a head's settings: every example is judged by a head that was trained without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from configs.errors import InputError
from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings
from trainer.options import TrainingOptions
from trainer.training.loop import TrainingResult, train_head

# Settings that so many examples tell apart no better are as good as each other; a search over more takes minutes.
_MAX_EXAMPLES = 16_384

# The fold of examples that no head may do without: the only ones of their class.
ALWAYS_TRAINS = -1


def assign_folds(dataset: EmbeddingDataset, num_folds: int, *, seed: int) -> np.ndarray:
    """Spreads the examples of every class evenly over the folds, at random.

    An example of several labels counts for the rarest of them. Examples of one URI fall into one fold, so that no
    head is judged by an image that it was trained on.

    Args:
      dataset: what is to be cross-validated.
      num_folds: 2 or more.
      seed: the same one gives the same folds.

    Returns:
      int64, shape [n]: the fold of each example, from 0; `ALWAYS_TRAINS` for the only image of a class.

    Raises:
      InputError: some fold would be left without an example.
    """
    support = dataset.support()
    # Ids in the order of rarity, so that the smallest rank of an example is its rarest label.
    rank = np.empty(len(support), np.int64)
    rank[np.argsort(support, kind="stable")] = np.arange(len(support))
    stratum = np.minimum.reduceat(rank[dataset.label_ids], dataset.label_splits[:-1])
    _, first_rows, image_of = np.unique(dataset.uris, return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    fold_of_image = np.full(len(first_rows), ALWAYS_TRAINS, np.int64)
    dealt = 0
    for value in np.unique(stratum):
        images = random.permutation(np.flatnonzero(stratum[first_rows] == value))
        if len(images) > 1:
            # Where one class ended the next goes on, so that the folds are of one size.
            fold_of_image[images] = (dealt + np.arange(len(images))) % num_folds
            dealt += len(images)
    if dealt < num_folds:
        raise InputError(
            f"--tune: {dealt} training images are of a class with more than one image, too few for cross-validation "
            f"in {num_folds} folds. Give more images, or leave out --tune."
        )
    return fold_of_image[image_of]


def take_rows(dataset: EmbeddingDataset, rows: np.ndarray) -> EmbeddingDataset:
    """Some examples of a data set, with their embeddings in memory.

    Args:
      dataset: in memory or streamed; it is gone through once.
      rows: int64, shape [m], ascending and distinct.
    """
    kept = np.empty((len(rows), dataset.embeddings.shape[1]), np.float32)
    start = first = 0
    for piece in dataset.embeddings.pieces():
        last = int(np.searchsorted(rows, start + len(piece)))
        np.take(piece, rows[first:last] - start, axis=0, out=kept[first:last], mode="clip")
        start, first = start + len(piece), last
    counts = np.diff(dataset.label_splits)
    chosen = np.zeros(len(dataset), bool)
    chosen[rows] = True
    return dataclasses.replace(
        dataset,
        uris=dataset.uris[rows],
        embeddings=MemoryEmbeddings(kept),
        label_ids=dataset.label_ids[np.repeat(chosen, counts)],
        label_splits=np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int64),
        num_unlabeled=0,
        source="",  # Of the whole.
    )


def sample_in_memory(dataset: EmbeddingDataset, options: TrainingOptions) -> EmbeddingDataset:
    """The examples in memory, or as many at random as many fits can do with and `max_memory_mb` allows: 16,384 at most.

    Args:
      dataset: in memory or streamed; it is gone through once.
      options: of the run; the same seed gives the same examples.
    """
    rows = _MAX_EXAMPLES
    if options.max_memory_mb is not None:
        # A quarter, since a fold's examples are copied.
        rows = min(rows, max(1, options.max_memory_mb * (1 << 20) // 4 // (4 * dataset.embeddings.shape[1])))
    if len(dataset) <= rows:
        return take_rows(dataset, np.arange(len(dataset)))
    chosen = np.random.default_rng(options.seed).choice(len(dataset), rows, replace=False)
    return take_rows(dataset, np.sort(chosen))


def fit(train: EmbeddingDataset, held_out: EmbeddingDataset, options: TrainingOptions) -> TrainingResult:
    """Trains a head of which nothing stays on disk.

    Raises:
      InputError: see `train_head`.
    """
    return train_head(train, held_out, options, write=False)


def fit_for(
    steps: int, train: EmbeddingDataset, held_out: EmbeddingDataset, options: TrainingOptions
) -> TrainingResult:
    """Trains a head for so many steps, without `held_out` having a say in when it ends.

    Raises:
      InputError: see `train_head`.
    """
    exact = dataclasses.replace(options, max_steps=steps, epochs=None, eval_every_steps=steps, early_stopping=0)
    return fit(train, held_out, exact)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """How good some settings are on examples that were not trained on.

    Attributes:
      steps: with the lowest loss, as a mean over the folds.
      losses: float64, shape [folds that were run]: after `steps` steps, of each fold's own examples.
      accuracies: the same of accuracy.
      given_up: whether folds were left out, because the first ones were hopeless.
    """

    steps: int
    losses: np.ndarray
    accuracies: np.ndarray
    given_up: bool


def cross_validate(
    dataset: EmbeddingDataset,
    folds: np.ndarray,
    options: TrainingOptions,
    *,
    hopeless: Callable[[CrossValidation], bool] = lambda so_far: False,
) -> CrossValidation:
    """Trains a head without each fold in turn and judges it by that fold.

    Args:
      dataset: in memory.
      folds: from `assign_folds`.
      options: of the head; an evaluation at every `eval_every_steps` steps is a chance for the number of steps.
      hopeless: asked after each fold but the last whether to leave out the rest.

    Raises:
      InputError: training diverged.
    """
    losses: list[list[float]] = []
    accuracies: list[list[float]] = []
    numbers = range(int(folds.max()) + 1)
    for number in numbers:
        history = fit(
            take_rows(dataset, np.flatnonzero(folds != number)),
            take_rows(dataset, np.flatnonzero(folds == number)),
            options,
        ).history
        losses.append([point.eval_loss for point in history])
        accuracies.append([point.eval_accuracy for point in history])
        # A fold that was stopped early says nothing of later steps, so they are out for all.
        common = min(map(len, losses))
        curves = np.array([curve[:common] for curve in losses])
        best = int(curves.mean(axis=0).argmin())
        so_far = CrossValidation(
            steps=history[best].step,
            losses=curves[:, best],
            accuracies=np.array([curve[best] for curve in accuracies]),
            given_up=number != numbers[-1],
        )
        if so_far.given_up and hopeless(so_far):
            break
    return so_far
