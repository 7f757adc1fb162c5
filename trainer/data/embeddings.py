"""The embeddings of a data set: an array in memory or, where memory is too small, a stream from the shards.

An image may have several embeddings, its views. View 0 is that of the undistorted image. In each epoch, one view of
each image is drawn. The draw depends on the seed, the epoch and the row, and on nothing else. So a resumed run, each
of several workers, and a set that is read from the disk all draw the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from trainer.data.feature_statistics import FeatureStatistics

_PIECE_ROWS = 4096
# Makes the numbers that draw views others than those that order the examples.
_DRAWS_VIEWS = 0x76696577


def drawn_views(seed: int, epoch: int, *, num_rows: int, num_views: int) -> np.ndarray:
    """The view of each row in an epoch: int64, shape [num_rows], uniform over 0 to `num_views` - 1."""
    random = np.random.default_rng([seed, epoch, _DRAWS_VIEWS])
    return random.integers(num_views, size=num_rows)


class Shuffle(Protocol):
    """An endless sequence of examples in random order. In each epoch every example comes exactly once, in one view."""

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
    def num_views(self) -> int:
        """How many embeddings each example has; 1 if only that of the undistorted image."""

    @property
    def in_memory(self) -> bool:
        """False if each pass reads the shards again."""

    def pieces(self) -> Iterator[np.ndarray]:
        """View 0 of all examples in order, in pieces: float32, shapes [m, embedding_size]; m varies and is never 0."""

    def view_pieces(self) -> Iterator[np.ndarray]:
        """The same with all views: float32, shapes [m, num_views, embedding_size]."""

    def first_view(self) -> Embeddings:
        """View 0 alone."""

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics of view 0.

        The other views take no part. A model meets undistorted images, so these are the inputs that should have a mean
        of 0 and equal deviations; and trainings with and without views then differ in the views alone.
        """

    def shuffled(self, seed: int) -> Shuffle:
        """All examples, epoch after epoch, in an order and with views that the seed decides."""


class _MemoryShuffle:
    def __init__(self, views: np.ndarray, seed: int):
        self._num_views, self._num_rows, size = views.shape
        self._array = views.reshape(-1, size)
        self._seed = seed
        self._epoch = 0
        self._waiting = np.zeros(0, np.int64)  # Places in the array.

    def _next_epoch(self) -> np.ndarray:
        # Each epoch has its own generator, so the order of an epoch does not depend on the epochs before it.
        rows = np.random.default_rng([self._seed, self._epoch]).permutation(self._num_rows)
        if self._num_views == 1:
            return rows
        views = drawn_views(self._seed, self._epoch, num_rows=self._num_rows, num_views=self._num_views)
        return rows + self._num_rows * views[rows]

    def fill(self, out: np.ndarray) -> np.ndarray:
        parts = []
        missing = len(out)
        while missing:
            if not len(self._waiting):
                self._waiting = self._next_epoch()
                self._epoch += 1
            parts.append(self._waiting[:missing])
            self._waiting = self._waiting[missing:]
            missing -= len(parts[-1])
        places = np.concatenate(parts) if len(parts) != 1 else parts[0]
        # Unlike `array[places]`, this writes into existing memory and releases the interpreter's lock. The mode that
        # checks bounds would make another copy.
        np.take(self._array, places, axis=0, out=out, mode="clip")
        return places if self._num_views == 1 else places % self._num_rows

    def skip(self, sizes: Sequence[int]) -> None:
        self._epoch, within = divmod(sum(sizes), self._num_rows)
        if within:
            self.fill(np.empty((within, self._array.shape[1]), self._array.dtype))


class MemoryEmbeddings:
    """Embeddings that fit in memory, one for each example."""

    in_memory = True
    num_views = 1

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

    def view_pieces(self) -> Iterator[np.ndarray]:
        """Yields views of the array."""
        for piece in self.pieces():
            yield piece[:, np.newaxis]

    def first_view(self) -> MemoryEmbeddings:
        """The same embeddings."""
        return MemoryEmbeddings(self.array)

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics of view 0, computed by this call."""
        statistics = FeatureStatistics(self.shape[1])
        for piece in self.pieces():
            statistics.update(piece)
        return statistics

    def shuffled(self, seed: int) -> Shuffle:
        """Each epoch has a new permutation."""
        return _MemoryShuffle(self.array[np.newaxis], seed)


class MemoryViews(MemoryEmbeddings):
    """Embeddings that fit in memory, several for each example."""

    def __init__(self, views: np.ndarray):
        """Takes float32, shape [views, n, embedding_size], contiguous, without copying it."""
        super().__init__(views[0])
        self._views = views
        self.num_views = len(views)

    def view_pieces(self) -> Iterator[np.ndarray]:
        """Yields transposed views of the array."""
        for start in range(0, len(self.array), _PIECE_ROWS):
            yield self._views[:, start : start + _PIECE_ROWS].swapaxes(0, 1)

    def shuffled(self, seed: int) -> Shuffle:
        """Each epoch has a new permutation and new views."""
        return _MemoryShuffle(self._views, seed)


# Reads parts (shards) in the order given: the row numbers and the embeddings of consecutive rows.
ReadParts = Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]


def _one_view_each(
    pieces: Iterator[tuple[np.ndarray, np.ndarray]], views: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of pieces with all views, rows [m] and embeddings [m, views, size], the view that was drawn for each row."""
    for rows, values in pieces:
        yield rows, values[np.arange(len(rows)), views[rows]]


class _PoolShuffle:
    """Reads parts in random order into a pool; each new embedding replaces one that was drawn at random."""

    def __init__(
        self,
        read_epoch: Callable[[int, np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]],
        *,
        num_parts: int,
        shape: tuple[int, int],
        pool_rows: int,
        seed: int,
    ):
        """Takes a function of the epoch and of the order of the parts in it, and else what `StreamedEmbeddings` has."""
        self._read_epoch = read_epoch
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
            self._incoming = self._read_epoch(self._epoch, self._random.permutation(self._num_parts))
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
        num_views: int = 1,
        read_views: ReadParts | None = None,
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
          num_views: how many embeddings each example has.
          read_views: as `read_parts`, with all views: float32 [m, num_views, embedding_size]; None if there is one.
        """
        self._read_parts = read_parts
        self._num_parts = num_parts
        self._statistics = statistics
        self._pool_rows = pool_rows
        self._read_views = read_views
        self.shape = shape
        self.num_views = num_views

    def pieces(self) -> Iterator[np.ndarray]:
        """Reads the shards."""
        for _, values in self._read_parts(np.arange(self._num_parts)):
            yield values

    def view_pieces(self) -> Iterator[np.ndarray]:
        """Reads the shards."""
        if self._read_views is None:
            yield from (piece[:, np.newaxis] for piece in self.pieces())
        else:
            yield from (values for _, values in self._read_views(np.arange(self._num_parts)))

    def first_view(self) -> StreamedEmbeddings:
        """View 0 alone, read from the shards at each use."""
        return StreamedEmbeddings(
            self._read_parts,
            num_parts=self._num_parts,
            shape=self.shape,
            statistics=self._statistics,
            pool_rows=self._pool_rows,
        )

    def feature_statistics(self) -> FeatureStatistics:
        """The feature statistics of view 0, known from the first pass."""
        return self._statistics

    def shuffled(self, seed: int) -> Shuffle:
        """Reads the shards in a new order in each epoch, and shuffles their records in a pool in memory.

        The pool holds the drawn views alone.
        """
        pool_rows = min(self._pool_rows, self.shape[0])

        def read_epoch(epoch: int, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            if self._read_views is None:
                return self._read_parts(order)
            views = drawn_views(seed, epoch, num_rows=self.shape[0], num_views=self.num_views)
            return _one_view_each(self._read_views(order), views)

        return _PoolShuffle(read_epoch, num_parts=self._num_parts, shape=self.shape, pool_rows=pool_rows, seed=seed)
