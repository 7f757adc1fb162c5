"""Permutation tests that ask whether new photos come from where the training photos came from.

Under the hypothesis that they do, it is chance which of all photos are the new ones. So each statistic is compared with
its values for random choices of as many photos: the share of choices with a value at least as large is the p-value, and
it is right for any distribution and any number of photos (Phipson and Smyth, 2010). All that the statistics use is
computed from both groups alike, and needs no labels.

- `mmd`: the maximum mean discrepancy with a Gaussian kernel (Gretton et al., 2012). It sees a change of all photos.
- `new_group`: the scan statistic of `group_scan`. It sees a group of few photos, such as those of an unseen class.

Where several statistics are asked, the smallest of their weighted p-values is compared with the smallest ones of the
random choices, so that asking more does not make more false alarms (Westfall and Young, 1993).

All coordinates are computed from the photos alone, not from labels: axes that were fitted to the labels of the training
photos put these, and not the new ones, where they fit (with such axes up to 78 % of splits without drift were alarms at
the level 0.05, also if each photo's axes were fitted without it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from insight.data.principal_axes import principal_axes
from insight.drifting.group_scan import MAX_COMPONENTS, scan_for_group, unit_rows

_PERMUTATIONS = 999
_COMPONENTS = 64
_NEIGHBOURS = 8
# The share of the false alarms of both tests. A group of few photos is harder to see than a change of all.
_WEIGHTS = (0.25, 0.75)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingTests:
    """What the embeddings of new photos and of training photos say.

    Attributes:
      p_value: of both tests together.
      mmd: the p-value of the maximum mean discrepancy.
      new_group: the p-value of the search for a group of new photos.
      group: int64: the new photos of the group that stands out most, those nearest to its centre first.
      unusual: float64, shape [n]: for each new photo how much more near it are new photos than training photos: the
        share of new ones among its nearest neighbours, less what chance gives.
      reference_neighbours: int64, shape [n, k]: the nearest training photos of each new photo, the nearest first.
      similarity: float64, shape [n]: to the nearest training photo; at most 1.
      reference_similarity: float64, shape [m]: of each training photo to the nearest other training photo.
    """

    p_value: float
    mmd: float
    new_group: float
    group: np.ndarray
    unusual: np.ndarray
    reference_neighbours: np.ndarray
    similarity: np.ndarray
    reference_similarity: np.ndarray


def _scores(vectors: np.ndarray) -> np.ndarray:
    """The photos along their principal axes, each scaled to the square root of its deviation: shape [n, at most 128].

    In full space, the many weak components drown the few that tell classes apart; whitened fully, they would count as
    much as those.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    deviation = centred.std(axis=0)
    centred /= np.where(deviation > 0, deviation, 1)
    scores = centred @ principal_axes(centred, count=MAX_COMPONENTS)
    scores /= np.sqrt(np.maximum(np.linalg.norm(scores, axis=0), 1e-12))
    return scores


def _choices(total: int, chosen: int, seed: int) -> np.ndarray:
    """float32 [permutations + 1, total]: 1 for chosen rows. The first choice is the new photos, the last rows."""
    random = np.random.default_rng(seed)
    choices = np.zeros((_PERMUTATIONS + 1, total), np.float32)
    choices[0, total - chosen :] = 1
    for number in range(1, _PERMUTATIONS + 1):
        choices[number, random.permutation(total)[:chosen]] = 1
    return choices


def _p_value(values: np.ndarray) -> float:
    """The share of choices whose statistic is at least that of the first one, which counts itself."""
    # Equal values must not differ by rounding.
    return float(np.mean(values >= values[0] - 1e-9 * max(1.0, abs(float(values[0])))))


def _smallest(statistics: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Of each choice, the smallest weighted p-value of several statistics, with its sign changed: float64 [choices].

    Args:
      statistics: shape [choices, number of statistics]; large values speak for a difference.
      weights: the share of the false alarms that each statistic has.
    """
    p_values = np.empty(statistics.shape)
    for column in range(statistics.shape[1]):
        values = np.round(statistics[:, column].astype(np.float64), 9)
        ordered = np.sort(values)
        p_values[:, column] = (len(values) - np.searchsorted(ordered, values, side="left")) / len(values)
    return -(p_values / np.asarray(weights)).min(axis=1)


def compare_embeddings(reference: np.ndarray, new: np.ndarray, *, seed: int = 0) -> EmbeddingTests:
    """Compares two groups of embeddings.

    Args:
      reference: float32, shape [m, r]: of training photos.
      new: float32, shape [n, r]: of new photos; n is at least 2.
      seed: of the random choices.
    """
    total, chosen = len(reference) + len(new), len(new)
    scores = _scores(np.concatenate([reference, new]))
    features = unit_rows(scores[:, :_COMPONENTS])
    choices = _choices(total, chosen, seed)
    scan = scan_for_group(scores, choices)
    similarities = features @ features.T
    distances = 2 - 2 * similarities
    kernel = np.exp(-distances / max(float(np.median(distances)), 1e-12))
    np.fill_diagonal(kernel, 0)
    weights = choices / chosen - (1 - choices) / max(1, total - chosen)
    discrepancy = np.einsum("pi,pi->p", weights @ kernel.astype(np.float32), weights)

    np.fill_diagonal(similarities, -np.inf)
    count = min(_NEIGHBOURS, total - 1)
    of_new = np.argpartition(-similarities[len(reference) :], count - 1, axis=1)[:, :count]
    to_reference = similarities[len(reference) :, : len(reference)]
    nearest = np.argsort(-to_reference, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return EmbeddingTests(
        p_value=_p_value(_smallest(np.stack([discrepancy, scan.values], axis=1), _WEIGHTS)),
        mmd=_p_value(discrepancy),
        new_group=_p_value(scan.values),
        group=scan.group[scan.group >= len(reference)] - len(reference),
        unusual=(of_new >= len(reference)).mean(axis=1) - (chosen - 1) / (total - 1),
        reference_neighbours=nearest,
        similarity=to_reference.max(axis=1),
        reference_similarity=similarities[: len(reference), : len(reference)].max(axis=1),
    )


def compare_numbers(reference: np.ndarray, new: np.ndarray, *, seed: int = 0) -> tuple[float, np.ndarray]:
    """Compares some numbers of two groups of photos by their ranks.

    Args:
      reference: float32, shape [p, k]: k numbers of p training photos.
      new: float32, shape [n, k].
      seed: of the random choices.

    Returns:
      The p-value of the largest difference of mean ranks; and the difference of each number's mean ranks as the
      probability that it is larger for a new photo than for a training photo, less a half: float64 [k], between -0.5
      and 0.5.
    """
    total, chosen = len(reference) + len(new), len(new)
    values = np.concatenate([reference, new])
    # Ranks with means for ties.
    order = np.argsort(values, axis=0, kind="stable")
    ranks = np.empty(values.shape, np.float64)
    for column in range(values.shape[1]):
        _, place, counts = np.unique(values[order[:, column], column], return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks[order[:, column], column] = (ends - (counts + 1) / 2)[place]
    centred = ranks - ranks.mean(axis=0)
    choices = _choices(total, chosen, seed)
    sums = np.abs(choices.astype(np.float64) @ centred)
    effects = centred[len(reference) :].sum(axis=0) / (chosen * max(1, len(reference)))
    return _p_value(sums.max(axis=1)), effects


def class_mix(label_ids: np.ndarray, neighbours: np.ndarray, *, num_labels: int) -> np.ndarray:
    """The share of each class among photos, as their neighbours in the training set say.

    Args:
      label_ids: int64, shape [m]: of training photos.
      neighbours: int64, shape [n, k]: training photos near each photo.
      num_labels: the number of classes.

    Returns:
      float64, shape [num_labels]; adds up to 1.
    """
    votes = np.zeros((len(neighbours), num_labels))
    for place in range(neighbours.shape[1]):
        votes[np.arange(len(neighbours)), label_ids[neighbours[:, place]]] += 1
    winners = votes.argmax(axis=1)
    return np.bincount(winners, minlength=num_labels) / max(1, len(neighbours))
