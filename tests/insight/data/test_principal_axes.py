from __future__ import annotations

import numpy as np
import pytest

from insight.data import principal_axes as module
from insight.data.principal_axes import principal_axes


@pytest.mark.parametrize("shape", [(40, 8), (8, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_axes_are_orthonormal_and_ordered_by_the_variance_along_them(shape, dtype, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)
    vectors = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
    centred = vectors - vectors.mean(axis=0)
    axes = principal_axes(vectors, mean=vectors.mean(axis=0), dtype=dtype)
    assert axes.shape == (shape[1], min(shape) - (shape[0] < shape[1]))
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-5)
    lengths = np.linalg.norm(centred @ axes, axis=0)
    np.testing.assert_allclose(lengths, np.linalg.svd(centred)[1][: len(lengths)], rtol=1e-4)
    np.testing.assert_array_equal(principal_axes(vectors, mean=vectors.mean(axis=0), dtype=dtype, count=3), axes[:, :3])


def test_vectors_without_a_direction_have_no_axis():
    assert principal_axes(np.zeros((3, 5))).shape == (5, 0)
