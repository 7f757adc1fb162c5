"""Cross-validation of a head's settings: every example is tested on a head that was trained without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from configs.errors import InputError
from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings, MemoryViews
from trainer.data.shared_images import image_numbers
from trainer.options import TrainingOptions
from trainer.training.checkpoints import NO_SAVING
from trainer.training.loop import TrainingResult, train_head

# The search uses at most this many examples. Settings that perform the same on so many examples are equally good, and a
# search over more examples would take minutes.
_MAX_EXAMPLES = 16_384
# With many views of each example, fewer examples are used, so that the embeddings take at most about 1 GB (of 2,048
# floats each).
_MAX_EMBEDDINGS = 131_072

# The fold of examples that are the only one of their class. Every head is trained on them.
ALWAYS_TRAINS = -1


def assign_folds(dataset: EmbeddingDataset, num_folds: int, *, seed: int) -> np.ndarray:
    """Distributes the examples of every class evenly over the folds, at random.

    An example with several labels counts for its rarest label. Examples with the same image are in the same fold, so no
    head is tested on an image that it was trained on. See `image_numbers`.

    Args:
      dataset: the data set to cross-validate.
      num_folds: 2 or more.
      seed: the same seed gives the same folds.

    Returns:
      int64, shape [n]: the fold of each example, from 0; `ALWAYS_TRAINS` for the only image of a class.

    Raises:
      InputError: a fold would have no example.
    """
    support = dataset.support()
    # Ranks the ids by rarity, so that the label with the smallest rank is the rarest label of an example.
    rank = np.empty(len(support), np.int64)
    rank[np.argsort(support, kind="stable")] = np.arange(len(support))
    stratum = np.minimum.reduceat(rank[dataset.label_ids], dataset.label_splits[:-1])
    _, first_rows, image_of = np.unique(image_numbers(dataset), return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    fold_of_image = np.full(len(first_rows), ALWAYS_TRAINS, np.int64)
    dealt = 0
    for value in np.unique(stratum):
        images = random.permutation(np.flatnonzero(stratum[first_rows] == value))
        if len(images) > 1:
            # A class begins at the fold after the last one of the class before, so that the folds have equal sizes.
            fold_of_image[images] = (dealt + np.arange(len(images))) % num_folds
            dealt += len(images)
    if dealt < num_folds:
        raise InputError(
            f"--tune: {dealt} training images are of a class with more than one image, too few for cross-validation "
            f"in {num_folds} folds. Give more images, or leave out --tune."
        )
    return fold_of_image[image_of]


def take_rows(dataset: EmbeddingDataset, rows: np.ndarray, *, all_views: bool = True) -> EmbeddingDataset:
    """Some examples of a data set, with their embeddings in memory.

    Args:
      dataset: in memory or streamed; it is read once.
      rows: int64, shape [m], ascending and distinct.
      all_views: whether to take all views of each example; else only view 0, as of examples that are only tested.
    """
    source = dataset.embeddings if all_views else dataset.embeddings.first_view()
    kept = np.empty((source.num_views, len(rows), source.shape[1]), np.float32)
    start = first = 0
    for piece in source.view_pieces():
        last = int(np.searchsorted(rows, start + len(piece)))
        for view in range(source.num_views):
            np.take(piece[:, view], rows[first:last] - start, axis=0, out=kept[view, first:last], mode="clip")
        start, first = start + len(piece), last
    embeddings = MemoryViews(kept) if source.num_views > 1 else MemoryEmbeddings(kept[0])
    # The source is left empty: it covers the whole set, not a part of it.
    return EmbeddingDataset(**vars(dataset.examples_at(rows)), embeddings=embeddings)


def sample_in_memory(dataset: EmbeddingDataset, options: TrainingOptions) -> EmbeddingDataset:
    """The examples in memory. If there are more than 16,384, or more than `max_memory_mb` allows, a random sample.

    Above 8 views of each example, there are fewer: 131,072 embeddings.

    Args:
      dataset: in memory or streamed; it is read once.
      options: the options of the run; the same seed gives the same examples.
    """
    num_views, size = dataset.embeddings.num_views, dataset.embeddings.shape[1]
    rows = min(_MAX_EXAMPLES, _MAX_EMBEDDINGS // num_views)
    if options.max_memory_mb is not None:
        # The sample may take a quarter of the memory, because the examples of each fold are copied.
        rows = min(rows, max(1, options.max_memory_mb * (1 << 20) // 4 // (4 * num_views * size)))
    if len(dataset) <= rows:
        return take_rows(dataset, np.arange(len(dataset)))
    chosen = np.random.default_rng(options.seed).choice(len(dataset), rows, replace=False)
    return take_rows(dataset, np.sort(chosen))


def fit(train: EmbeddingDataset, held_out: EmbeddingDataset, options: TrainingOptions) -> TrainingResult:
    """Trains a head and writes nothing to the disk.

    Raises:
      InputError: see `train_head`.
    """
    return train_head(train, held_out, options, saving=NO_SAVING)


def fit_for(
    steps: int, train: EmbeddingDataset, held_out: EmbeddingDataset, options: TrainingOptions
) -> TrainingResult:
    """Trains a head for a fixed number of steps; `held_out` does not decide when training ends.

    Raises:
      InputError: see `train_head`.
    """
    exact = dataclasses.replace(options, max_steps=steps, epochs=None, eval_every_steps=steps, early_stopping=0)
    return fit(train, held_out, exact)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """The result of some settings on examples that were not used for training.

    Attributes:
      steps: the number of steps with the lowest mean loss over the folds.
      losses: float64, shape [folds that were run]: the loss on each fold's own examples after `steps` steps.
      accuracies: the accuracies, in the same form.
      given_up: whether folds were skipped because the results of the first folds were hopeless.
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
    """For each fold, trains a head on all other folds and tests it on that fold.

    Args:
      dataset: in memory.
      folds: from `assign_folds`.
      options: the options of the head. The number of steps is chosen among the evaluations at every `eval_every_steps`
        steps.
      hopeless: called after each fold but the last; if it returns True, the other folds are skipped.

    Raises:
      InputError: training diverged.
    """
    losses: list[list[float]] = []
    accuracies: list[list[float]] = []
    numbers = range(int(folds.max()) + 1)
    for number in numbers:
        history = fit(
            take_rows(dataset, np.flatnonzero(folds != number)),
            take_rows(dataset, np.flatnonzero(folds == number), all_views=False),
            options,
        ).history
        losses.append([point.eval_loss for point in history])
        accuracies.append([point.eval_accuracy for point in history])
        # A fold that was stopped early has no results for later steps, so later steps are excluded for all folds.
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
