"""A map that goes on from an earlier one: where new photos begin, and how the whole is laid over the earlier map."""

from __future__ import annotations

import numpy as np


def starting_positions(earlier: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Positions to begin with: those of the earlier map; for a new photo the median of its neighbours.

    A new photo whose neighbours are all new begins where they begin. Photos without any way to a known one begin in
    the middle of the map.

    Args:
      earlier: float32, shape [n, 2], at least one row of it without NaN; NaN for new photos.
      neighbours: int64, shape [n, k]: rows of each photo's neighbours.

    Returns:
      float32, shape [n, 2].
    """
    found = earlier.copy()
    missing = np.flatnonzero(np.isnan(found).any(axis=1))
    while missing.size:
        near = found[neighbours[missing]]
        reached = ~np.isnan(near[..., 0]).all(axis=1)
        if not reached.any():
            break
        found[missing[reached]] = np.nanmedian(near[reached], axis=1)
        missing = missing[~reached]
    found[missing] = np.nanmedian(earlier, axis=0)
    return found


def aligned(positions: np.ndarray, earlier: np.ndarray, *, with_scale: bool = False) -> np.ndarray:
    """Positions moved, turned and mirrored as a whole so that photos of the earlier map are nearest to where they were.

    The orthogonal Procrustes problem: Schönemann, 1966.

    Args:
      positions: float32, shape [n, 2].
      earlier: float32, shape [n, 2]; NaN for photos that the earlier map does not have.
      with_scale: whether the whole may also become larger or smaller.

    Returns:
      float32, shape [n, 2].
    """
    known = ~np.isnan(earlier).any(axis=1)
    ours, theirs = positions[known].astype(np.float64), earlier[known].astype(np.float64)
    middle, target = ours.mean(axis=0), theirs.mean(axis=0)
    u, strengths, v = np.linalg.svd((ours - middle).T @ (theirs - target))
    size = float(((ours - middle) ** 2).sum())
    scale = strengths.sum() / size if with_scale and size > 0 else 1.0
    return ((positions - middle) @ (u @ v) * scale + target).astype(np.float32)
