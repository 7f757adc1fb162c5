"""Leaves out photos whose file another one is equal to: a sample with copies of one photo looks like a group."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def first_of_each(digests: Iterable[str | None], *, most: int | None = None) -> np.ndarray:
    """The places of photos, without those whose digest an earlier one has.

    Args:
      digests: of the file of each photo; None if it is not known. Such a photo is equal to no other.
      most: so many places are enough; None for all. No further digest is asked for.

    Returns:
      int64, ascending.
    """
    seen: set[str] = set()
    kept: list[int] = []
    for place, digest in enumerate(digests):
        if len(kept) == most:
            break
        if digest is None or digest not in seen:
            kept.append(place)
        if digest is not None:
            seen.add(digest)
    return np.array(kept, np.int64)
