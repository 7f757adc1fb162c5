"""Exact nearest neighbours among candidates that come in pieces, and need not be in memory together."""

from __future__ import annotations

import numpy as np


class BestSoFar:
    """The k most similar of all candidates that were offered, for each of n queries.

    Attributes:
      rows: int64, shape [n, k]: the number of each candidate, the most similar first, of equal ones the first; -1
        where fewer than k were offered.
      similarities: float32, shape [n, k]: their cosine similarities; -inf where there is none.
    """

    def __init__(self, queries: np.ndarray, count: int):
        """Begins with none.

        Args:
          queries: float32, shape [n, size], from `unit_vectors`.
          count: how many to keep, k.
        """
        self._queries = queries
        self.rows = np.full((len(queries), count), -1, np.int64)
        self.similarities = np.full((len(queries), count), -np.inf, np.float32)

    def offer(self, candidates: np.ndarray, *, first_row: int) -> None:
        """Offers candidates: float32, shape [m, size], from `unit_vectors`; the first has the number `first_row`."""
        count = self.rows.shape[1]
        found = self._queries @ candidates.T
        for query, similarities in enumerate(found):
            better = np.flatnonzero(similarities > self.similarities[query, -1])
            if not better.size:
                continue
            if better.size > count:
                last = np.partition(similarities[better], -count)[-count]
                better = better[similarities[better] >= last]
            values = np.concatenate([self.similarities[query], similarities[better]])
            numbers = np.concatenate([self.rows[query], better + first_row])
            order = np.lexsort((numbers, -values))[:count]
            self.similarities[query], self.rows[query] = values[order], numbers[order]
