"""The embeddings of a data set: an array in memory, or a stream from its shards where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from trainer.data.feature_statistics import RunningMoments

_PIECE_ROWS = 4096


class Shuffle(Protocol):
    """An endless supply of examples in random order; every example comes once before any comes again."""

    def fill(self, out: np.ndarray) -> np.ndarray:
        """Writes the next embeddings.

        Args:
          out: float32, shape [m, embedding_size]; overwritten.

        Returns:
          int64, shape [m]: the rows that they are the embeddings of.
        """

    def skip(self, sizes: Sequence[int]) -> None:
        """Goes to where calls of `fill` with arrays of these sizes would have led; before the first of them."""


class Embeddings(Protocol):
    """The embeddings of n examples in the order of their rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many there are, and floats in each."""

    @property
    def in_memory(self) -> bool:
        """False if each pass reads the shards again."""

    def pieces(self) -> Iterator[np.ndarray]:
        """All of them in order: float32, shapes [m, embedding_size] with any m above 0."""

    def moments(self) -> RunningMoments:
        """Their statistics."""

    def shuffled(self, seed: int) -> Shuffle:
        """All of them, again and again, in an order that the seed decides."""


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
                # A generator an epoch: the order of an epoch can be had without going through those before it.
                self._waiting = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._array))
                self._epoch += 1
            parts.append(self._waiting[:missing])
            self._waiting = self._waiting[missing:]
            missing -= len(parts[-1])
        rows = np.concatenate(parts) if len(parts) != 1 else parts[0]
        # Unlike array[rows], into memory that is there, and with the interpreter's lock left to others. The mode that
        # checks bounds would copy once more.
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
        """How many there are, and floats in each."""
        return self.array.shape[0], self.array.shape[1]

    def pieces(self) -> Iterator[np.ndarray]:
        """Views of the array."""
        for start in range(0, len(self.array), _PIECE_ROWS):
            yield self.array[start : start + _PIECE_ROWS]

    def moments(self) -> RunningMoments:
        """Computed by this call."""
        moments = RunningMoments(self.shape[1])
        for piece in self.pieces():
            moments.update(piece)
        return moments

    def shuffled(self, seed: int) -> Shuffle:
        """A new permutation for each epoch."""
        return _MemoryShuffle(self.array, seed)


# Embeddings of consecutive rows, of the parts (shards) in the order given.
ReadParts = Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]


class _PoolShuffle:
    """Parts in random order, through a pool: what comes in takes the place of what goes out at random."""

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
        self._rows = np.zeros(0, np.int64)  # Of the piece that is being taken in.
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
        # How much is asked for at a time decides the order, but no further than to the end of an epoch.
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
            if piece is None:  # The end of the epoch: the pool is emptied in random order.
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
        moments: RunningMoments,
        pool_rows: int,
    ):
        """Reads nothing yet.

        Args:
          read_parts: given the numbers of parts, in an order, reads these: row numbers, int64 [m], and their
            embeddings, float32 [m, embedding_size]; in the order of rows within each part. May raise InputError.
          num_parts: their number.
          shape: embeddings in all parts, and floats in each.
          moments: the statistics, from the pass that learned the other arguments.
          pool_rows: embeddings that are held in memory to shuffle. The larger, the better the order.
        """
        self._read_parts = read_parts
        self._num_parts = num_parts
        self._moments = moments
        self._pool_rows = pool_rows
        self.shape = shape

    def pieces(self) -> Iterator[np.ndarray]:
        """Reads the shards."""
        for _, values in self._read_parts(np.arange(self._num_parts)):
            yield values

    def moments(self) -> RunningMoments:
        """Known from the first pass."""
        return self._moments

    def shuffled(self, seed: int) -> Shuffle:
        """Shards in an order of the epoch, and a pool in memory through which their records go."""
        pool_rows = min(self._pool_rows, self.shape[0])
        return _PoolShuffle(
            self._read_parts, num_parts=self._num_parts, shape=self.shape, pool_rows=pool_rows, seed=seed
        )
