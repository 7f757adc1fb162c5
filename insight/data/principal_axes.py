"""The principal axes of embeddings: orthogonal directions, those in which the embeddings differ most first."""

from __future__ import annotations

from typing import Any

import numpy as np

# Rows that are multiplied at once: 40 MiB as float64 at 1,280 numbers a row.
_ROWS = 4096
# A direction with a smaller share of the largest variance is rounding.
_SMALLEST = 1e-9


def principal_axes(
    vectors: np.ndarray, *, mean: np.ndarray | None = None, count: int | None = None, dtype: Any = np.float64
) -> np.ndarray:
    """The eigenvectors of the covariance (Jolliffe, Principal Component Analysis, 2002).

    For n vectors with more numbers than that, they are found from the products of the vectors with each other, which
    have the same eigenvalues and are fewer.

    Args:
      vectors: shape [n, size], n at least 1.
      mean: shape [size], subtracted from each vector; None if their mean is 0 already.
      count: how many axes, at most; None for all.
      dtype: in which the covariance of many vectors is computed. float32 is three times as fast, and exact enough for
        the first axes.

    Returns:
      float64, shape [size, k]: columns of length 1. k is less than `count` if the vectors have fewer directions.
    """
    size = vectors.shape[1]
    if len(vectors) < size:
        centred = (vectors if mean is None else vectors - mean).astype(np.float64, copy=False)
        values, sides = np.linalg.eigh(centred @ centred.T)
        kept = values > _SMALLEST * max(float(values[-1]), 1e-30)
        axes = centred.T @ (sides[:, kept] / np.sqrt(values[kept]))
    else:
        covariance = np.zeros((size, size))
        for start in range(0, len(vectors), _ROWS):
            block = vectors[start : start + _ROWS]
            centred = (block if mean is None else block - mean).astype(dtype, copy=False)
            covariance += centred.T @ centred
        axes = np.linalg.eigh(covariance)[1]
    return axes[:, ::-1][:, :count]
