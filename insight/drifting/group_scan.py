"""Searches for a group of new photos among all photos: the scan statistic of Kulldorff (1997).

"A spatial scan statistic", Communications in Statistics 26(6), with the Bernoulli model. Every photo is the centre of
some neighbourhoods, small and large ones. If a share p of the photos in a neighbourhood are new, and a share q of those
outside, its likelihood ratio says how much better this explains who is new than one share for all. The largest one of
all neighbourhoods is the statistic. It sees a group of few photos, such as those of an unseen class, which moves no
mean; and it says which photos these are.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# The neighbourhoods have so many photos: these, and more by a factor, up to a share of all photos.
_SMALLEST = 6
_FACTOR = 1.22
_LARGEST_SHARE = 0.15
# A photo is replaced by the mean of so many nearest ones, twice, before neighbourhoods are drawn around it.
_SMOOTHED_OVER = 8
_SMOOTHED_TIMES = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroupScan:
    """What was found.

    Attributes:
      values: float64, shape [choices]: the statistic of each choice of new photos.
      group: int64: the photos of the neighbourhood with the largest likelihood ratio of the first choice, those nearest
        to its centre first.
    """

    values: np.ndarray
    group: np.ndarray


def neighbourhood_sizes(total: int) -> list[int]:
    """How many photos the neighbourhoods have, ascending, for so many photos in all."""
    sizes = [min(_SMALLEST, max(1, total // 2))]
    while (after := max(sizes[-1] + 1, round(sizes[-1] * _FACTOR))) <= _LARGEST_SHARE * total:
        sizes.append(after)
    return sizes


def smoothed(features: np.ndarray) -> np.ndarray:
    """Directions, each replaced by the mean of its nearest ones, as in mean shift (Fukunaga and Hostetler, 1975).

    In many dimensions a photo is far from all others, also from those of its class; their means are much nearer.

    Args:
      features: shape [n, r], each of length 1.
    """
    count = min(_SMOOTHED_OVER, len(features))
    for _ in range(_SMOOTHED_TIMES):
        nearest = np.argpartition(-(features @ features.T), count - 1, axis=1)[:, :count]
        features = features[nearest].mean(axis=1)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return features


def likelihood_ratios(size: int, *, new: int, total: int) -> np.ndarray:
    """The logarithms of the likelihood ratios of a neighbourhood with 0, 1 ... `size` new photos: float64 [size + 1].

    Args:
      size: photos in the neighbourhood.
      new: new photos in all.
      total: all photos.

    Returns:
      0 where the share of new photos is not larger inside than outside.
    """
    inside = np.arange(size + 1, dtype=np.float64)
    outside = new - inside
    ratio = _share_terms(inside, size) + _share_terms(outside, total - size) - _share_terms(np.float64(new), total)
    return np.where((inside * total > new * size) & (outside >= 0), ratio, 0.0)


def _share_terms(part: np.ndarray, whole: int) -> np.ndarray:
    """The logarithm of the likelihood of `part` of `whole` at the share that makes it largest; 0 log 0 is 0."""
    share = np.clip(part / whole, 0, 1)
    return part * np.log(np.maximum(share, 1e-300)) + (whole - part) * np.log(np.maximum(1 - share, 1e-300))


def scan_for_group(features: np.ndarray, choices: np.ndarray) -> GroupScan:
    """Searches for the neighbourhood with the most surprising share of new photos.

    Args:
      features: shape [n, r]: of all photos, each of length 1.
      choices: shape [choices, n]: 1 for the photos that are new; the first choice is the true one. All choose as many.
    """
    total, new = len(features), int(choices[0].sum())
    sizes = neighbourhood_sizes(total)
    near = smoothed(features)
    orders = np.argsort(-(near @ near.T), axis=1, kind="stable")[:, : sizes[-1]]
    # A photo in a row, so that what is read at once lies together.
    is_new = np.ascontiguousarray(choices.T).astype(np.int16)
    counts = np.zeros((total, len(choices)), np.int16)
    best = np.zeros(len(choices))
    centre, largest, size_there = 0, -1.0, sizes[0]
    for place in range(sizes[-1]):
        counts += is_new[orders[:, place]]
        if place + 1 not in sizes:
            continue
        ratios = likelihood_ratios(place + 1, new=new, total=total)
        # The ratio grows with the number of new photos, so that of the largest number is the largest.
        best = np.maximum(best, ratios[counts.max(axis=0)])
        here = int(counts[:, 0].argmax())
        if ratios[counts[here, 0]] > largest:
            centre, largest, size_there = here, float(ratios[counts[here, 0]]), place + 1
    return GroupScan(values=best, group=orders[centre, :size_there])
