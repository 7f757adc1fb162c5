"""Searches for a group of new photos among all photos: the scan statistic of Kulldorff (1997).

"A spatial scan statistic", Communications in Statistics 26(6), with the Bernoulli model. Every photo is the centre of
some neighbourhoods, small and large ones. If a share p of the photos in a neighbourhood are new, and a share q of those
outside, its likelihood ratio says how much better this explains who is new than one share for all. The largest one of
all neighbourhoods is the statistic. It sees a group of few photos, such as those of an unseen class, which moves no
mean; and it says which photos these are.

How near photos are is asked of several graphs, and their statistics are added: what is chance in one of them is seldom
chance in all, while a group of a class is seen in most.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# The neighbourhoods have so many photos: these, and more by a factor, up to a share of all photos.
_SMALLEST = 6
_FACTOR = 1.22
_LARGEST_SHARE = 0.15
# The graphs: each photo is joined to so many nearest ones in so many principal components.
_GRAPHS = ((64, 5), (64, 10), (64, 20), (128, 10), (128, 20))
MAX_COMPONENTS = 128
# A photo gets so many coordinates from a graph.
_COORDINATES = 32
# So many photos and more get their coordinates by iteration, which the others do not need.
_ITERATED = 1500
_ITERATIONS = 60


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroupScan:
    """What was found.

    Attributes:
      values: float64, shape [choices]: the statistic of each choice of new photos.
      group: int64: the photos of the neighbourhood that stands out most for the first choice, those nearest to its
        centre first.
    """

    values: np.ndarray
    group: np.ndarray


def neighbourhood_sizes(total: int) -> list[int]:
    """How many photos the neighbourhoods have, ascending, for so many photos in all."""
    sizes = [min(_SMALLEST, max(1, total // 2))]
    while (after := max(sizes[-1] + 1, round(sizes[-1] * _FACTOR))) <= _LARGEST_SHARE * total:
        sizes.append(after)
    return sizes


def graph_coordinates(features: np.ndarray, joined: int) -> np.ndarray:
    """Coordinates from the graph that joins each photo to its nearest ones: diffusion maps (Coifman and Lafon, 2006).

    In many dimensions a photo is far from all others, also from those of its class. On the graph, photos are near each
    other if many short ways lead from one to the other. The coordinates are eigenvectors of the random walk on the
    graph, each times its eigenvalue.

    Args:
      features: shape [n, r], each of length 1; n is at least 3.
      joined: to how many nearest ones each photo is joined.

    Returns:
      float64, shape [n, k]: directions of length 1; k is at most 32.
    """
    total = len(features)
    similarities = features @ features.T
    np.fill_diagonal(similarities, -np.inf)
    joined = min(joined, total - 1)
    nearest = np.argpartition(-similarities, joined - 1, axis=1)[:, :joined]
    graph = np.zeros((total, total))
    graph[np.arange(total)[:, np.newaxis], nearest] = 1
    graph += graph.T
    roots = np.sqrt(graph.sum(axis=1))
    graph /= roots[:, np.newaxis] * roots
    values, vectors = _largest_eigenvectors(graph, min(_COORDINATES + 1, total))
    # The first one is the same for all photos.
    coordinates = vectors[:, 1:] * np.maximum(values[1:], 0) / roots[:, np.newaxis]
    return unit_rows(coordinates)


def _largest_eigenvectors(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, float64 [k], and their eigenvectors, float64 [n, k], of a symmetric matrix.

    Its eigenvalues are between -1 and 1. For large matrices it is a subspace iteration (Saad, Numerical Methods for
    Large Eigenvalue Problems, 2011), which is exact enough for neighbourhoods.
    """
    if len(matrix) < _ITERATED:
        values, vectors = np.linalg.eigh(matrix)
        return values[::-1][:count], vectors[:, ::-1][:, :count]
    single = matrix.astype(np.float32)
    vectors = np.random.default_rng(0).standard_normal((len(matrix), 2 * count)).astype(np.float32)
    for _ in range(_ITERATIONS):
        # Half of the sum with the identity: its eigenvalues are not negative, so the largest ones prevail.
        vectors = np.linalg.qr((single @ vectors + vectors) / 2)[0]
    values, turned = np.linalg.eigh((vectors.T @ (single @ vectors)).astype(np.float64))
    return values[::-1][:count], vectors.astype(np.float64) @ turned[:, ::-1][:, :count]


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


def _share_terms(part: np.ndarray | np.float64, whole: int) -> np.ndarray:
    """The logarithm of the likelihood of `part` of `whole` at the share that makes it largest; 0 log 0 is 0."""
    share = np.clip(part / whole, 0, 1)
    return part * np.log(np.maximum(share, 1e-300)) + (whole - part) * np.log(np.maximum(1 - share, 1e-300))


def scan_for_group(scores: np.ndarray, choices: np.ndarray) -> GroupScan:
    """Searches for the neighbourhood with the most surprising share of new photos.

    Args:
      scores: shape [n, r]: the photos along their principal axes, the first ones first; r is at most 128.
      choices: shape [choices, n]: 1 for the photos that are new; the first choice is the true one. All choose as many.
    """
    # A photo in a row, so that what is read at once lies together.
    is_new = np.ascontiguousarray(choices.T).astype(np.int16)
    total = np.zeros(len(choices))
    largest, group = -np.inf, np.zeros(0, np.int64)
    for components, joined in _GRAPHS:
        values, found = _scan_graph(graph_coordinates(unit_rows(scores[:, :components]), joined), is_new)
        # The same numbers for all choices, so that no choice is treated in another way.
        values = (values - values.mean()) / max(float(values.std()), 1e-12)
        total += values
        if values[0] > largest:
            largest, group = float(values[0]), found
    return GroupScan(values=total, group=group)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors, shape [n, r], each made as long as 1; one of length 0 stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _scan_graph(near: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The statistic of each choice, float64 [choices], and the neighbourhood that stands out most for the first one.

    Args:
      near: shape [n, k]: directions that say how near photos are.
      is_new: int16, shape [n, choices].
    """
    total, new = len(near), int(is_new[:, 0].sum())
    sizes = neighbourhood_sizes(total)
    orders = np.argsort(-(near @ near.T), axis=1, kind="stable")[:, : sizes[-1]]
    counts = np.zeros_like(is_new)
    best = np.zeros(is_new.shape[1])
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
    return best, orders[centre, :size_there]
