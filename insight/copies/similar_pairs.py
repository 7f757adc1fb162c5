"""Finds pairs of photos whose embeddings are more alike than those of different photos of this set ever are.

Two photos of one class are alike too, and more so where the class fills a dense part of the space. So a pair is judged
by its distance relative to the distances of the two photos to their further neighbours ("local scaling": Zelnik-Manor
and Perona, "Self-tuning spectral clustering", NIPS 2004). Its score is 1 - d / sqrt(a b), where d is the distance of
the two, and a and b are the mean distances of each to its 6th to 15th neighbour. It is 1 for equal embeddings, about 0
for photos that are not nearer than the neighbours of either. Distances are 1 - the cosine similarity after the mean of
all embeddings is subtracted.

The threshold comes from the set itself: the best score of each photo, where no twin of it is left in the set, is taken
as normally distributed, with the median and the lower decile of those that were measured. Pairs of one class are among
them: they are more alike than those of different classes, which only say from where on pairs are left out as twins.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from insight.neighbours.exact import nearest, unit_vectors

# How many neighbours are looked at. The first ones may be copies, the others say how dense the space is.
_NEIGHBOURS = 15
_COPIES = 5
# With fewer photos there are no neighbours to compare with.
FEWEST_PHOTOS = 2 * _NEIGHBOURS
# The share of a normal distribution that is above the threshold. Best scores have a heavier tail than the normal
# distribution that has their lower quantiles: among random vectors up to 1.4 % of the photos exceed it.
_TAIL_SHARE = 0.0001
FALSE_SHARE = 0.02
# Scores above this share of the distribution that a cut is made of are not looked at.
_CUT_SHARE = 0.0001
_MOST_SENSIBLE = 0.9
_QUANTILES = (0.1, 0.5)
_GAP_RATIO = sum(1 / k for k in range(1, _COPIES)) / sum(1 / k for k in range(_COPIES, _NEIGHBOURS))
# The fit of a distribution that is cut converges at once if little is cut off, and means nothing if most is.
_ROUNDS = 20
_LEAST_BELOW_CUT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimilarPairs:
    """Pairs of photos with their scores. Each pair is in it once.

    Attributes:
      first, second: int64 [m]: rows, `first` < `second`.
      scores: float64 [m].
      threshold: the score that a pair needs; infinite if there are too few photos to judge by.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    threshold: float

    def __len__(self) -> int:
        return len(self.first)


def centred(embeddings: np.ndarray) -> np.ndarray:
    """Unit vectors after the mean is subtracted: float32 [n, size]. What all photos share says nothing about two."""
    return unit_vectors(embeddings - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32))


def find_similar_pairs(vectors: np.ndarray, classes: np.ndarray) -> SimilarPairs:
    """Finds the pairs of photos that are more alike than chance.

    Args:
      vectors: float32 [n, size], from `centred`. Of copies that are known already, one should be among them.
      classes: int64 [n]: the class of each photo; -1 if it is not known.
    """
    nothing = np.empty(0, np.int64)
    if len(vectors) < FEWEST_PHOTOS:
        return SimilarPairs(first=nothing, second=nothing, scores=np.empty(0), threshold=float("inf"))
    rows, similarities = nearest(vectors, vectors, _NEIGHBOURS, query_rows=np.arange(len(vectors)))
    scale = np.maximum(1 - similarities[:, _COPIES:].mean(axis=1, dtype=np.float64), 1e-6)
    scores = 1 - (1 - similarities.astype(np.float64)) / np.sqrt(scale[:, np.newaxis] * scale[rows])
    threshold = _threshold(rows, scores, classes)
    query, place = np.nonzero(scores >= threshold)
    partner = rows[query, place]
    low, high = np.minimum(query, partner), np.maximum(query, partner)
    _, once = np.unique(low * len(vectors) + high, return_index=True)
    return SimilarPairs(first=low[once], second=high[once], scores=scores[query, place][once], threshold=threshold)


def _threshold(rows: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> float:
    apart = (classes[rows] != classes[:, np.newaxis]) & (classes[rows] >= 0) & (classes[:, np.newaxis] >= 0)
    apart_best = np.where(apart, scores, -np.inf).max(axis=1)
    apart_best = apart_best[np.isfinite(apart_best)]
    # What the best score would be without copies, from the gap between the 5th and the 15th: if scores have an
    # exponential tail, the gap between the k-th and the m-th best is as 1/k + ... + 1/(m - 1).
    fifth = scores[:, _COPIES - 1]
    cuts = [fifth + _GAP_RATIO * np.median(fifth - scores[:, -1]), fifth]
    if len(apart_best) >= FEWEST_PHOTOS:
        cuts.insert(0, apart_best)
    for values in cuts:
        found = _bound_without_twins(rows, scores, cut_at=_upper_bound(values, _CUT_SHARE))
        # Where most photos have many copies, they pass for its neighbours, and the next cut is a lower one.
        if found <= _MOST_SENSIBLE:
            return found
    return _MOST_SENSIBLE


def _bound_without_twins(rows: np.ndarray, scores: np.ndarray, *, cut_at: float) -> float:
    """The score that few photos reach whose twins are left out: pairs above `cut_at` are taken for twins."""
    is_left = np.ones(len(rows), bool)
    for query, place in zip(*np.nonzero(scores > cut_at), strict=True):
        if rows[query, place] < query and is_left[rows[query, place]]:
            is_left[query] = False
    alone = np.where(is_left[rows], scores, -np.inf)[is_left].max(axis=1)
    alone = alone[np.isfinite(alone)]
    if len(alone) < FEWEST_PHOTOS:
        return math.inf
    return _upper_bound(alone, _TAIL_SHARE, cut_at=cut_at)


def _upper_bound(values: np.ndarray, share: float, *, cut_at: float = math.inf) -> float:
    """What this share of a normal distribution exceeds, which has two quantiles of the values.

    Args:
      values: [n], n > 0.
      share: from 0 to 1.
      cut_at: the values are those of the distribution that are not larger, so their quantiles are others of it.
    """
    normal = NormalDist()
    low, median = np.quantile(values, _QUANTILES)
    below_cut = 1.0
    for _ in range(_ROUNDS):
        low_z, median_z = (normal.inv_cdf(quantile * below_cut) for quantile in _QUANTILES)
        deviation = max(float(median - low) / (median_z - low_z), 1e-9)
        mean = float(median) - deviation * median_z
        below_cut = max(normal.cdf((cut_at - mean) / deviation), _LEAST_BELOW_CUT)
    return mean + deviation * normal.inv_cdf(1 - share)
