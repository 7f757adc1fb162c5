"""Principal components: the directions in which embeddings differ most. They come before a map, or are the map."""

from __future__ import annotations

import numpy as np

from insight.data.principal_axes import principal_axes

# Rows that are multiplied at once in float64: 40 MiB at 1,280 numbers a row.
_ROWS = 4096


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """The coordinates of vectors along their first principal components.

    Each has the sign with which its largest weight is positive, so the same vectors give the same coordinates.

    Args:
      vectors: float32, shape [n, size], n at least 1.
      count: how many components, k. If there are fewer directions, the others are 0.

    Returns:
      float32, shape [n, k].
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    directions = principal_axes(vectors, mean=mean, count=count, dtype=np.float32)
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1, 1)
    found = np.zeros((len(vectors), count), np.float32)
    for start in range(0, len(vectors), _ROWS):
        block = slice(start, start + _ROWS)
        found[block, : directions.shape[1]] = (vectors[block] - mean) @ directions
    return found
