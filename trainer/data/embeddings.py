"""The embeddings of a data set: an array in memory or, where memory is too small, a stream from the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from trainer.data.feature_statistics import FeatureStatistics

_PIECE_ROWS = 4096


class Shuffle(Protocol):
    """An endless sequence of examples in random order. In each epoch every example comes exactly once."""

    def fill(self, out: np.ndarray) -> np.ndarray:
        """Writes the next embeddings.

        Args:
          out: float32, shape [m, embedding_size]; overwritten.

        Returns:
          int64, shape [m]: the row number of each embedding.
        """

    def skip(self, sizes: Sequence[int]) -> None:
        """Skips the examples that calls of `fill` with arrays of these sizes would give. Call it before `fill`."""


class Embeddings(Protocol):
    """The embeddings of n examples in the order of their rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """The number of embeddings, and the number of floats in each."""

    @property
    def in_memory(self) -> bool:
        """False if each pass reads the shards again."""

    def pieces(self) -> Iterator[np.ndarray]:
        """All embeddings in order, in pieces: float32, shapes [m, embedding_size]; m may vary and is never 0."""

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics of all embeddings."""

    def shuffled(self, seed: int) -> Shuffle:
        """All embeddings, epoch after epoch, in an order that the seed decides."""


class _MemoryShuffle:
    def __init__(self, array: np.ndarray, seed: int):
        self._array = array
        self._seed = seed
        self._epoch = 0
        self._waiting = np.zeros(0, np.int64)

    def fill(self, out: np.ndarray) -> np.ndarray:
        parts = []
        missing = len(out)
        while missing:
            if not len(self._waiting):
                # Each epoch has its own generator, so the order of an epoch does not depend on the epochs before it.
                self._waiting = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._array))
                self._epoch += 1
            parts.append(self._waiting[:missing])
            self._waiting = self._waiting[missing:]
            missing -= len(parts[-1])
        rows = np.concatenate(parts) if len(parts) != 1 else parts[0]
        # Unlike `array[rows]`, this writes into existing memory and releases the interpreter's lock. The mode that
        # checks bounds would make another copy.
        np.take(self._array, rows, axis=0, out=out, mode="clip")
        return rows

    def skip(self, sizes: Sequence[int]) -> None:
        self._epoch, within = divmod(sum(sizes), len(self._array))
        if within:
            self.fill(np.empty((within, self._array.shape[1]), self._array.dtype))


class MemoryEmbeddings:
    """Embeddings that fit in memory."""

    in_memory = True

    def __init__(self, array: np.ndarray):
        """Takes float32, shape [n, embedding_size], without copying it."""
        self.array = array

    @property
    def shape(self) -> tuple[int, int]:
        """The number of embeddings, and the number of floats in each."""
        return self.array.shape[0], self.array.shape[1]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yields views of the array."""
        for start in range(0, len(self.array), _PIECE_ROWS):
            yield self.array[start : start + _PIECE_ROWS]

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics, computed by this call."""
        statistics = FeatureStatistics(self.shape[1])
        for piece in self.pieces():
            statistics.update(piece)
        return statistics

    def shuffled(self, seed: int) -> Shuffle:
        """Each epoch has a new permutation."""
        return _MemoryShuffle(self.array, seed)


# Reads parts (shards) in the order given: the row numbers and the embeddings of consecutive rows.
ReadParts = Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]


class _PoolShuffle:
    """Reads parts in random order into a pool; each new embedding replaces one that was drawn at random."""

    def __init__(self, read_parts: ReadParts, *, num_parts: int, shape: tuple[int, int], pool_rows: int, seed: int):
        self._read_parts = read_parts
        self._num_parts = num_parts
        self._num_rows, size = shape
        self._pool = np.empty((pool_rows, size), np.float32)
        self._pool_ids = np.empty(pool_rows, np.int64)
        self._filled = 0
        self._seed = seed
        self._epoch = -1
        self._random = np.random.default_rng()
        self._incoming: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        self._rows = np.zeros(0, np.int64)  # The rows of the piece that is being read into the pool.
        self._values = self._pool[:0]
        self._draining = True

    def fill(self, out: np.ndarray) -> np.ndarray:
        rows = np.empty(len(out), np.int64)
        done = 0
        while done < len(out):
            if self._draining:
                done += self._drain(rows[done:], out[done:])
            elif self._next_piece():
                done += self._exchange(rows[done:], out[done:])
        return rows

    def skip(self, sizes: Sequence[int]) -> None:
        # The sizes of the requests influence the order within an epoch, but not the order of later epochs.
        epochs, missing = divmod(sum(sizes), self._num_rows)
        tail: list[int] = []
        for size in reversed(sizes):
            tail.append(min(size, missing))
            missing -= tail[-1]
            if not missing:
                break
        self._epoch = epochs - 1
        for size in reversed(tail):
            self.fill(np.empty((size, self._pool.shape[1]), np.float32))

    def _next_piece(self) -> bool:
        if not len(self._rows):
            piece = next(self._incoming, None)
            if piece is None:  # At the end of the epoch, the pool is emptied in random order.
                order = self._random.permutation(self._filled)
                self._pool_order = order
                self._draining = True
                return False
            self._rows, self._values = piece
        return True

    def _exchange(self, rows: np.ndarray, out: np.ndarray) -> int:
        free = len(self._pool) - self._filled
        if free:
            count = min(free, len(self._rows))
            places = np.arange(self._filled, self._filled + count)
            self._filled += count
            given = 0
        else:
            count = given = min(len(rows), len(self._rows), len(self._pool))
            places = self._random.choice(len(self._pool), count, replace=False)
            rows[:count] = self._pool_ids[places]
            out[:count] = self._pool[places]
        self._pool_ids[places] = self._rows[:count]
        self._pool[places] = self._values[:count]
        self._rows, self._values = self._rows[count:], self._values[count:]
        return given

    _pool_order = np.zeros(0, np.int64)

    def _drain(self, rows: np.ndarray, out: np.ndarray) -> int:
        places, self._pool_order = self._pool_order[: len(rows)], self._pool_order[len(rows) :]
        rows[: len(places)] = self._pool_ids[places]
        out[: len(places)] = self._pool[places]
        if not len(self._pool_order):
            self._epoch += 1
            self._random = np.random.default_rng([self._seed, self._epoch])
            self._incoming = self._read_parts(self._random.permutation(self._num_parts))
            self._filled = 0
            self._draining = False
        return len(places)


class StreamedEmbeddings:
    """Embeddings that are read from the shards at each use."""

    in_memory = False

    def __init__(
        self,
        read_parts: ReadParts,
        *,
        num_parts: int,
        shape: tuple[int, int],
        statistics: FeatureStatistics,
        pool_rows: int,
    ):
        """Reads nothing yet.

        Args:
          read_parts: takes the numbers of parts and reads these parts in this order. It yields row numbers, int64 [m],
            and their embeddings, float32 [m, embedding_size], in the order of rows within each part. It may raise
            InputError.
          num_parts: the number of parts.
          shape: the number of embeddings in all parts, and the number of floats in each.
          statistics: the feature statistics; the pass that found the other arguments has computed them.
          pool_rows: how many embeddings are kept in memory for the shuffle. A larger pool gives a better shuffle.
        """
        self._read_parts = read_parts
        self._num_parts = num_parts
        self._statistics = statistics
        self._pool_rows = pool_rows
        self.shape = shape

    def pieces(self) -> Iterator[np.ndarray]:
        """Reads the shards."""
        for _, values in self._read_parts(np.arange(self._num_parts)):
            yield values

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics, known from the first pass."""
        return self._statistics

    def shuffled(self, seed: int) -> Shuffle:
        """Reads the shards in a new order in each epoch, and shuffles their records in a pool in memory."""
        pool_rows = min(self._pool_rows, self.shape[0])
        return _PoolShuffle(
            self._read_parts, num_parts=self._num_parts, shape=self.shape, pool_rows=pool_rows, seed=seed
        )
