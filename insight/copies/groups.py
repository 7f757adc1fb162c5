"""Joins pairs of twins to groups: only if most of the photos that they join are pairs.

Without that guard one weak link joins two groups, and a chain of photos that are each a little like the next becomes
one group.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

# Two groups are joined if at least this share of the pairs between them was found: one pair does not join a photo to
# two others.
_SHARE_OF_PAIRS = 0.6


def join_guarded(count: int, first: np.ndarray, second: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The group of each photo, where the surest pairs are joined first, and groups only if most of their pairs are.

    Args:
      count: of photos.
      first: int64 [m]: the first photo of each pair. Each pair is there once.
      second: int64 [m]: the second one.
      scores: [m]: how sure each pair is.

    Returns:
      int64 [count], the first row of its group.
    """
    members = {row: [row] for row in {*first.tolist(), *second.tolist()}}
    group = {row: row for row in members}
    between: dict[int, Counter[int]] = {row: Counter() for row in members}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        between[one][other] += 1
        between[other][one] += 1
    for pair in np.argsort(-scores, kind="stable").tolist():
        low, high = sorted((group[int(first[pair])], group[int(second[pair])]))
        if low == high:
            continue
        if between[low][high] < _SHARE_OF_PAIRS * len(members[low]) * len(members[high]):
            continue
        for row in members[high]:
            group[row] = low
        members[low] += members.pop(high)
        for neighbour, number in between.pop(high).items():
            del between[neighbour][high]
            if neighbour != low:
                between[low][neighbour] += number
                between[neighbour][low] += number
    found = np.arange(count)
    for rows in members.values():
        found[rows] = min(rows)
    return found
