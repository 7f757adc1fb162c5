"""Exact nearest neighbours by cosine similarity, in blocks: memory grows with n and k, not with n²."""

from __future__ import annotations

import numpy as np

from configs.activity import doing

# The similarities of so many queries and so many candidates are held at once: 32 MiB.
_QUERIES, _CANDIDATES = 1024, 8192
# Up to so many times k better candidates of a block are merged as they are; of more, the k largest are selected first.
_FEW_TIMES = 4


def unit_vectors(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings of length 1, so that a product of two is their cosine similarity.

    Args:
      embeddings: float32, shape [n, size].

    Returns:
      float32, shape [n, size], a copy. An embedding of zeros stays zero, so its similarity to all others is 0.
    """
    # In float64, so that the squares of large embeddings do not overflow.
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64))
    lengths = np.maximum(lengths, np.finfo(np.float32).tiny)[:, np.newaxis]
    # Rounded while it is written: of a million embeddings, an array of float64 would take gigabytes.
    return np.divide(embeddings, lengths, out=np.empty(embeddings.shape, np.float32), casting="same_kind")


def nearest(
    queries: np.ndarray,
    candidates: np.ndarray,
    count: int,
    *,
    query_rows: np.ndarray | None = None,
    what: str = "looking for the nearest photos",
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar candidates of each query.

    It takes 2 n m size operations for n queries and m candidates: about a minute of two cores for 50,000 photos among
    themselves.

    Args:
      queries: float32, shape [n, size], from `unit_vectors`.
      candidates: float32, shape [m, size], from `unit_vectors`.
      count: how many to find, k. There are fewer if there are fewer candidates.
      query_rows: int64, shape [n]: for each query the candidate that it is itself, which is left out; -1 if it is none.
      what: the words of the activity.

    Returns:
      Rows of candidates, int64, and their similarities, float32; both of shape [n, k], the most similar first. Of equal
      ones the first row comes first.
    """
    total = len(queries)
    count = min(count, len(candidates) - (0 if query_rows is None else 1))
    if count < 1:
        return np.empty((total, 0), np.int64), np.empty((total, 0), np.float32)
    rows, similarities = np.empty((total, count), np.int64), np.empty((total, count), np.float32)
    with doing(what, total=total, unit="photo") as progress:
        for start in range(0, total, _QUERIES):
            block = slice(start, min(start + _QUERIES, total))
            own = None if query_rows is None else query_rows[block]
            rows[block], similarities[block] = _nearest_of_block(queries[block], candidates, count, own)
            progress.advance(block.stop - block.start)
    return rows, similarities


def _nearest_of_block(
    queries: np.ndarray, candidates: np.ndarray, count: int, own: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    best = np.full((len(queries), count), -np.inf, np.float32)
    best_rows = np.full((len(queries), count), -1, np.int64)
    for start in range(0, len(candidates), _CANDIDATES):
        found = queries @ candidates[start : start + _CANDIDATES].T
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + found.shape[1]))
            found[inside, own[inside] - start] = -np.inf
        # Of equal ones the first row stays, so later ones have to be better. After the first block few are, and to
        # find them takes a tenth of the time of a partition.
        better = found > best[:, -1:]
        most = int(better.sum(axis=1).max(initial=0))
        if not most:
            continue
        found, places = _packed(found, better, most) if most <= _FEW_TIMES * count else _largest(found, count)
        joined = np.concatenate([best, found], axis=1)
        joined_rows = np.concatenate([best_rows, places + start], axis=1)
        order = np.lexsort((joined_rows, -joined), axis=1)[:, :count]
        best = np.take_along_axis(joined, order, axis=1)
        best_rows = np.take_along_axis(joined_rows, order, axis=1)
    return best_rows, best


def _packed(found: np.ndarray, better: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The similarities of each row that are marked, and their columns, [n, most]; the rest of a row is -inf."""
    rows, columns = np.nonzero(better)
    within = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(found)))[rows]
    packed = np.full((len(found), most), -np.inf, np.float32)
    places = np.zeros((len(found), most), np.int64)
    packed[rows, within], places[rows, within] = found[rows, columns], columns
    return packed, places


def _largest(found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest similarities of each row, and their columns, [n, count]; of equal ones the first columns."""
    if found.shape[1] <= count:
        return found, np.broadcast_to(np.arange(found.shape[1]), found.shape)
    places = np.argpartition(found, found.shape[1] - count, axis=1)[:, -count:]
    # Of candidates that are as similar as the last one, the partition takes any.
    last = np.take_along_axis(found, places, axis=1).min(axis=1, keepdims=True)
    for query in np.flatnonzero((found >= last).sum(axis=1) > count).tolist():
        places[query] = np.argsort(-found[query], kind="stable")[:count]
    return np.take_along_axis(found, places, axis=1), places
