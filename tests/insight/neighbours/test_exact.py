from __future__ import annotations

import numpy as np
import pytest

from insight.neighbours import exact
from insight.neighbours.exact import nearest, unit_vectors


@pytest.mark.parametrize("blocks", [(1024, 8192), (7, 11)])
@pytest.mark.parametrize("count", [1, 5, 40, 1000])
def test_the_neighbours_are_those_of_a_full_sort(blocks, count, monkeypatch):
    monkeypatch.setattr(exact, "_QUERIES", blocks[0])
    monkeypatch.setattr(exact, "_CANDIDATES", blocks[1])
    vectors = unit_vectors(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))
    rows, similarities = nearest(vectors, vectors, count, query_rows=np.arange(50))
    full = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(full, -np.inf)
    order = np.argsort(-full, axis=1)[:, : min(count, 49)]
    assert np.array_equal(rows, order)
    assert np.allclose(similarities, np.take_along_axis(full, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("candidates", [8192, 1, 2])
def test_equal_candidates_come_in_the_order_of_their_rows_and_a_photo_is_not_its_own_neighbour(candidates, monkeypatch):
    monkeypatch.setattr(exact, "_CANDIDATES", candidates)
    vectors = unit_vectors(np.ones((4, 3), np.float32))
    rows, _ = nearest(vectors, vectors, 3, query_rows=np.array([2, 0, -1, 3]))
    assert rows.tolist() == [[0, 1, 3], [1, 2, 3], [0, 1, 2], [0, 1, 2]]


def test_there_may_be_no_candidates_and_embeddings_of_zeros_or_of_huge_numbers():
    vectors = unit_vectors(np.array([[0, 0], [3e30, 4e30], [1e-30, 0]], np.float32))
    assert np.allclose(vectors, [[0, 0], [0.6, 0.8], [1, 0]])
    rows, similarities = nearest(vectors, vectors[:0], 3)
    assert rows.shape == similarities.shape == (3, 0)
    assert nearest(vectors[:1], vectors[:1], 3, query_rows=np.zeros(1, np.int64))[0].shape == (1, 0)
