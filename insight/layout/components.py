"""Principal components: the directions in which embeddings differ most. They come before a map, or are the map."""

from __future__ import annotations

import numpy as np

# Rows that are multiplied at once in float64: 40 MiB at 1,280 numbers a row.
_ROWS = 4096


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """The coordinates of vectors along their first principal components.

    The components are the eigenvectors of the covariance (Jolliffe, Principal Component Analysis, 2002). Each has the
    sign with which its largest weight is positive, so the same vectors give the same coordinates.

    Args:
      vectors: float32, shape [n, size], n at least 1.
      count: how many components, k. If there are fewer directions, the others are 0.

    Returns:
      float32, shape [n, k].
    """
    size = vectors.shape[1]
    mean = vectors.mean(axis=0, dtype=np.float64)
    if len(vectors) < size:
        directions = np.linalg.svd((vectors - mean).astype(np.float32), full_matrices=False)[2][:count].T
    else:
        directions = _directions(vectors, mean)[:, :count]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1, 1)
    found = np.zeros((len(vectors), count), np.float32)
    for start in range(0, len(vectors), _ROWS):
        block = slice(start, start + _ROWS)
        found[block, : directions.shape[1]] = (vectors[block] - mean) @ directions
    return found


def _directions(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The eigenvectors of the covariance, float64 [size, size], that of the largest variance first."""
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), _ROWS):
        # float32 products of some thousand rows are exact enough, and three times as fast as float64.
        centred = (vectors[start : start + _ROWS] - mean).astype(np.float32)
        covariance += centred.T @ centred
    return np.linalg.eigh(covariance)[1][:, ::-1]
