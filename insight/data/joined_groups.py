"""Joins pairs of photos to groups: whoever is in a pair with one of a group is of the group."""

from __future__ import annotations

import numpy as np


def joined_groups(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The group of each photo, where all pairs are joined: int64 [count], the first row of its group."""
    parents = np.arange(count)

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = int(parents[row])
        return row

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    for row in range(count):
        parents[row] = parents[parents[row]]
    return parents


def equal_files(digests: np.ndarray) -> np.ndarray:
    """The group of each photo, where photos with equal files are a group.

    Args:
      digests: uint8, shape [n, 16]; 0 if it is not known. Such a photo is a group of its own.

    Returns:
      int64, shape [n]: the first row of the group.
    """
    groups = np.arange(len(digests))
    known = np.flatnonzero(digests.any(axis=1))
    keys = np.ascontiguousarray(digests[known]).view("S16").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    groups[known] = known[first[inverse]]
    return groups
