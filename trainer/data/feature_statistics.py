"""Mean and variance of each feature, computed in one pass. The embeddings need not be in memory."""

from __future__ import annotations

import numpy as np

# A float64 copy of this many embeddings of 2048 floats fits in the cache of a core.
_ROWS_AT_A_TIME = 64


class FeatureStatistics:
    """Mean and variance of each feature of the embeddings seen so far.

    Attributes:
      count: embeddings seen.
      mean: float64, shape [embedding_size].
    """

    def __init__(self, embedding_size: int):
        self.count = 0
        self.mean = np.zeros(embedding_size, np.float64)
        self._squares = np.zeros(embedding_size, np.float64)  # The sums of squared distances from the mean.

    def update(self, embeddings: np.ndarray) -> None:
        """Adds embeddings, float32, shape [m, embedding_size]."""
        for start in range(0, len(embeddings), _ROWS_AT_A_TIME):
            # float64, because in float32 a large mean leaves too few digits for a tiny variance.
            piece = embeddings[start : start + _ROWS_AT_A_TIME].astype(np.float64)
            mean = piece.mean(axis=0)
            piece -= mean
            squares = np.einsum("ij,ij->j", piece, piece)
            # Chan, Golub and LeVeque (1979) show how to combine the sums of two parts.
            total = self.count + len(piece)
            distance = mean - self.mean
            self._squares += squares + distance**2 * (self.count * len(piece) / total)
            self.mean += distance * (len(piece) / total)
            self.count = total

    @property
    def variance(self) -> np.ndarray:
        """float64, shape [embedding_size]; at least one embedding must have been seen."""
        return self._squares / self.count
