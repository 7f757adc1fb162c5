"""Finds pairs of photos whose embeddings are more alike than those of different photos of this set ever are.

Two photos of one class are alike too, and more so where the class fills a dense part of the space. So a pair is judged
by its distance relative to the distances of the two photos to their further neighbours ("local scaling": Zelnik-Manor
and Perona, "Self-tuning spectral clustering", NIPS 2004). Its score is 1 - d / sqrt(a b), where d is the distance of
the two, and a and b are the mean distances of each to its 6th to 15th neighbour. It is 1 for equal embeddings, about 0
for photos that are not nearer than the neighbours of either. Distances are 1 - the cosine similarity after the mean of
all embeddings is subtracted.

The threshold comes from the set itself: the best score of each photo, where no twin of it is left in the set, is taken
as normally distributed, with the median and the lower decile of those that were measured.
"""

from __future__ import annotations

import dataclasses
from statistics import NormalDist

import numpy as np

from insight.neighbours.exact import nearest, unit_vectors

# How many neighbours are looked at. The first ones may be copies, the others say how dense the space is.
_NEIGHBOURS = 15
_COPIES = 5
# With fewer photos there are no neighbours to compare with.
FEWEST_PHOTOS = 2 * _NEIGHBOURS
# Which share of all photos may be taken for a twin of another by chance.
FALSE_SHARE = 0.001
# The first guess, from the scores of pairs of different classes, which are less alike than those of one class.
_GUESS_SHARE = 0.0001
_QUANTILES = (0.1, 0.5)


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
    if len(apart_best) >= FEWEST_PHOTOS:
        guess = _upper_bound(apart_best, _GUESS_SHARE)
    else:
        # Most copies are nearer than the last neighbour that may be one.
        guess = _upper_bound(scores[:, _COPIES - 1], _GUESS_SHARE)
    # Of photos that the guess takes for twins only the first stays, so that what is measured are different photos.
    is_left = np.ones(len(rows), bool)
    for query, place in zip(*np.nonzero(scores > guess), strict=True):
        if rows[query, place] < query and is_left[rows[query, place]]:
            is_left[query] = False
    alone = np.where(is_left[rows], scores, -np.inf)[is_left].max(axis=1)
    alone = alone[np.isfinite(alone)]
    if len(alone) < FEWEST_PHOTOS:
        return guess
    return max(guess, _upper_bound(alone, FALSE_SHARE))


def _upper_bound(values: np.ndarray, share: float) -> float:
    """What this share of a normal distribution exceeds, which has two quantiles of the values."""
    low, median = np.quantile(values, _QUANTILES)
    deviation = (median - low) / -NormalDist().inv_cdf(_QUANTILES[0])
    return float(min(median + deviation * NormalDist().inv_cdf(1 - share), 0.99))
