"""Chooses the unlabelled photos to label next: those of which a head is unsure, spread over all that is unknown.

Weighted k-means (Zhdanov, "Diverse mini-batch active learning", 2019): the unlabelled photos are clustered into as many
clusters as labels are wanted, each photo weighs as much as the head is unsure of it, and of each cluster the photo
nearest to its centre is chosen. Photos that are unsure but all alike then count once, and sure ones hardly count. A
photo of a class with few labelled photos weighs more. Without any label all photos weigh the same.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from insight.label_errors.regression import fit_regression, log_softmax, logits_of
from insight.neighbours.exact import unit_vectors

# Of more unlabelled photos than this, a sample is clustered, in which unsure photos are more frequent.
_MAX_CLUSTERED = 20_000
_ROUNDS = 15
_BLOCK = 4096
# A photo of the rarest class weighs at most so many times as much as one of a class of mean size.
_MAX_RARE = 2.0
# The penalty on the squared weights of the head, which was the best of 0.003 to 0.3 for 10 to 500 labelled photos.
L2 = 0.03


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The photos to label next, the most wanted first.

    Attributes:
      rows: int64, shape [k]: places among the unlabelled photos.
      proposed: int64, shape [k]: the label that the head would give; -1 if there is no head.
      scores: float64, shape [k]: its score; nan if there is no head.
      runner_up: int64, shape [k]: the second label; -1 if there is none.
      stands_for: int64, shape [k]: how many of the photos that were clustered each of them stands for, with itself.
    """

    rows: np.ndarray
    proposed: np.ndarray
    scores: np.ndarray
    runner_up: np.ndarray
    stands_for: np.ndarray


def head_scores(
    features: np.ndarray, labelled: np.ndarray, label_ids: np.ndarray, num_labels: int
) -> np.ndarray | None:
    """The scores of a head that is trained on the labelled photos, for all photos.

    Args:
      features: shape [n, axes], from `principal_features`.
      labelled: int64, shape [m]: the labelled photos.
      label_ids: int64, shape [m]: their labels.
      num_labels: the number of classes.

    Returns:
      float64, shape [n, num_labels]; each row adds up to 1. None if the labelled photos are not of two classes.
    """
    if len(np.unique(label_ids)) < 2:
        return None
    weights = fit_regression(features[labelled], np.eye(num_labels)[label_ids], l2=L2)
    scores = np.empty((len(features), num_labels))
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores[block] = np.exp(log_softmax(logits_of(features[block], weights)))
    return scores


def importance(scores: np.ndarray | None, counts: np.ndarray, num_photos: int) -> np.ndarray:
    """How much each unlabelled photo weighs: 1 less the margin between its two best scores, more for rare classes.

    Args:
      scores: float64, shape [n, num_labels]; None if there is no head.
      counts: int64, shape [num_labels]: how many labelled photos each class has.
      num_photos: n.

    Returns:
      float64, shape [n], above 0.
    """
    if scores is None:
        return np.ones(num_photos)
    two = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    unsure = 1 - np.abs(two[:, 1] - two[:, 0])
    rare = np.clip(np.sqrt(counts.mean() / np.maximum(counts, 1)), 1, _MAX_RARE)
    return np.maximum(unsure, 1e-6) * (scores @ rare)


def choose(features: np.ndarray, scores: np.ndarray | None, counts: np.ndarray, count: int, *, seed: int = 0) -> Choice:
    """Chooses photos to label.

    Args:
      features: shape [n, axes]: of the unlabelled photos, from `principal_features`.
      scores: float64, shape [n, num_labels]: of the head; None if there is none.
      counts: int64, shape [num_labels]: how many labelled photos each class has.
      count: how many to choose; at most n are.
      seed: of the sample and of the first centres. The same seed chooses the same photos.
    """
    random = np.random.default_rng(seed)
    weights = importance(scores, counts, len(features))
    rows = np.arange(len(features))
    if len(rows) > max(_MAX_CLUSTERED, 4 * count):
        size = max(_MAX_CLUSTERED, 4 * count)
        rows = np.sort(random.choice(len(rows), size, replace=False, p=weights / weights.sum()))
        weights = np.ones(size)  # The sample has the weights in it already.
    units = unit_vectors(features[rows].astype(np.float32))
    count = min(count, len(rows))
    clusters, chosen = _weighted_clusters(units, weights, count, random)
    # The clusters with the most weight come first, so that who labels only the first ones labels the best.
    totals = np.bincount(clusters, weights=weights, minlength=count)
    order = np.argsort(-totals, kind="stable")
    chosen = chosen[order]
    stands_for = np.bincount(clusters, minlength=count)[order]
    picked = rows[chosen]
    if scores is None:
        nothing = np.full(count, -1)
        return Choice(
            rows=picked, proposed=nothing, scores=np.full(count, np.nan), runner_up=nothing, stands_for=stands_for
        )
    best = np.argsort(-scores[picked], axis=1, kind="stable")
    return Choice(
        rows=picked,
        proposed=best[:, 0],
        scores=np.take_along_axis(scores[picked], best[:, :1], axis=1)[:, 0],
        runner_up=best[:, 1],
        stands_for=stands_for,
    )


def _weighted_clusters(
    units: np.ndarray, weights: np.ndarray, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters on the sphere: the cluster of each photo, int64 [n], and the photo for each cluster, int64 [count]."""
    total = len(units)
    if count == total:
        return np.arange(total), np.arange(total)
    centres = units[_first_centres(units, weights, count, random)]
    clusters = np.zeros(total, np.int64)
    for _ in range(_ROUNDS):
        before = clusters
        clusters = _nearest_centre(units, centres)
        if np.array_equal(before, clusters):
            break
        sums = np.zeros(centres.shape)
        np.add.at(sums, clusters, units * weights[:, np.newaxis])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres).astype(np.float32)
    to_centre = np.einsum("ij,ij->i", units, centres[clusters])
    chosen = np.full(count, -1)
    order = np.lexsort((-to_centre, clusters))
    first = order[np.unique(clusters[order], return_index=True)[1]]
    chosen[clusters[first]] = first
    # A cluster without a photo gets the weightiest of the photos that are left.
    free = np.setdiff1d(np.argsort(-weights, kind="stable"), first, assume_unique=True)
    free = free[np.argsort(-weights[free], kind="stable")]
    empty = np.flatnonzero(chosen < 0)
    chosen[empty] = free[: len(empty)]
    clusters[chosen[empty]] = empty
    return clusters, chosen


def _first_centres(units: np.ndarray, weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Photos far from each other, drawn by weight and squared distance: k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen: list[int] = []
    distances = np.full(len(units), 2.0)
    for _ in range(count):
        shares = weights * distances
        shares[chosen] = 0
        if not shares.sum() > 0:  # The photos that are left equal chosen ones.
            shares = np.ones(len(units))
            shares[chosen] = 0
        chosen.append(int(random.choice(len(units), p=shares / shares.sum())))
        distances = np.minimum(distances, np.maximum(0, 2 - 2 * (units @ units[chosen[-1]]).astype(np.float64)))
    return np.array(chosen)


def _nearest_centre(units: np.ndarray, centres: np.ndarray) -> np.ndarray:
    nearest = np.empty(len(units), np.int64)
    for start in range(0, len(units), _BLOCK):
        nearest[start : start + _BLOCK] = (units[start : start + _BLOCK] @ centres.T).argmax(axis=1)
    return nearest
