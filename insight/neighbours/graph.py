"""The nearest neighbours of all photos among themselves, for maps: with faiss, where it is installed, much sooner."""

from __future__ import annotations

import importlib.util

import numpy as np

from configs.activity import doing
from insight.neighbours.exact import nearest

# Of more vectors than this, faiss compares each with those of some near cells only, and finds nearly all neighbours.
_MOST_COMPARED = 10_000
_LOOKED_INTO = 0.1
# The queries between two signs of life.
_QUERIES = 4096


def has_faiss() -> bool:
    """Whether faiss is installed (the optional extra `insight`)."""
    return importlib.util.find_spec("faiss") is not None


def neighbour_graph(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar other vectors of each vector. Of many vectors, faiss may miss some; without it, none is missed.

    Args:
      vectors: float32, shape [n, size], from `unit_vectors`.
      count: how many neighbours, k, below n.

    Returns:
      Rows, int64, and cosine similarities, float32; both of shape [n, k], the most similar first.
    """
    what = "looking for the neighbours of each photo"
    rows = np.arange(len(vectors))
    if not has_faiss():
        return nearest(vectors, vectors, count, query_rows=rows, what=what)
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors) > _MOST_COMPARED:
        cells = int(len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(index, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, int(cells * _LOOKED_INTO))
        index.train(vectors)
    index.add(vectors)
    found = np.empty((len(vectors), count), np.int64)
    similarities = np.empty((len(vectors), count), np.float32)
    with doing(what, total=len(vectors), unit="photo") as progress:
        for start in range(0, len(vectors), _QUERIES):
            block = slice(start, start + _QUERIES)
            near, near_rows = index.search(vectors[block], count + 1)
            # A vector is its own neighbour, in most cases the first one; copies of it may come before it.
            others = near_rows != rows[block, np.newaxis]
            others[others.all(axis=1), -1] = False
            found[block] = near_rows[others].reshape(-1, count)
            similarities[block] = near[others].reshape(-1, count)
            progress.advance(len(near))
    return found, similarities
