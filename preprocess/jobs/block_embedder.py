"""Embeds blocks of rows: reads and decodes ahead in threads, keeps the engine busy with full batches.

Rows whose embedding is known, from an earlier run or from the cache, take their place among the others without
passing the engine.

No Beam in here. Beam's local runner gives a stage one thread, and a Dataflow worker one for each core, so
what overlaps must overlap inside: while the engine works on its batches, threads read and decode the rows that
follow, across the end of a block into the next. Reading waits for storage and decoding releases the GIL, so
threads do.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from preprocess.engines.base import Engine
from preprocess.images.loader import ImageLoader, KnownImage, LoadedImage
from preprocess.jobs.block_results import COMPUTED, FROM_CACHE, FROM_EARLIER_RUN, BlockResult
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.resume import NOTHING_KNOWN, EarlierBlock
from preprocess.lists.blocks import RowBlock
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row
from preprocess.storage.uris import resolve_uri

# Rows whose embeddings are known, at most, that are written together with a batch.
_MAX_KNOWN_ROWS = 256


@dataclasses.dataclass(eq=False, slots=True)
class _OpenBlock:
    """A block on its way: rows not yet taken, and the batches of it that the engine has."""

    writer: BlockWriter
    rows: Iterator[tuple[Row, _KnownEmbedding | RowFailure | RowSkip | None]]
    rows_left: int
    batches_pending: int = 0


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _KnownEmbedding:
    """An embedding that need not be computed: float32 [embedding_size]."""

    embedding: np.ndarray
    digest: bytes
    source: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _PendingBatch:
    """Rows in their order; those whose image the engine has stand there by the image's digest."""

    block: _OpenBlock
    rows: list[tuple[Row, _KnownEmbedding | bytes]]
    embeddings: concurrent.futures.Future[np.ndarray] | None


class BlockEmbedder:
    """Embeds blocks in the order in which they are submitted.

    `submit` starts reading ahead; `complete_next` finishes the oldest block, and on the way starts on those after
    it. Submit the next block before completing the one before it, and the machine does not idle between them. All
    calls from one thread.

    Args:
      loader: reads and decodes, in threads.
      engine: pixels to embeddings.
      open_writer: makes the writer of a block.
      batch_size: images a batch. Batches never span blocks, so that what else a bundle holds cannot change a
        block's numbers.
      on_rows_done: told how many rows have reached their outcome since the last call.
      keep_embedding: told the digest and the embedding of each image that was computed.
    """

    def __init__(
        self,
        *,
        loader: ImageLoader,
        engine: Engine,
        open_writer: Callable[[RowBlock], BlockWriter],
        batch_size: int,
        on_rows_done: Callable[[int], None],
        keep_embedding: Callable[[bytes, np.ndarray], None] = lambda digest, embedding: None,
    ):
        self._loader = loader
        self._engine = engine
        self._open_writer = open_writer
        self._batch_size = batch_size
        self._on_rows_done = on_rows_done
        self._keep_embedding = keep_embedding
        self._blocks: collections.deque[_OpenBlock] = collections.deque()
        self._pending: collections.deque[_PendingBatch] = collections.deque()

    @property
    def submitted(self) -> int:
        """Blocks submitted and not yet completed."""
        return len(self._blocks)

    def submit(self, block: RowBlock, earlier: EarlierBlock = NOTHING_KNOWN) -> None:
        """Takes a block and starts on its images, as far as the read-ahead allows.

        Args:
          block: the block.
          earlier: what is known of it; images of which a record is known are not read.
        """
        writer = self._open_writer(block)
        rows = [(row, _known(row, earlier)) for row in block.rows]
        self._blocks.append(_OpenBlock(writer, iter(rows), len(rows)))
        self._loader.add(resolve_uri(row.uri, block.list_path) for row, known in rows if known is None)

    def complete_next(self) -> BlockResult:
        """Finishes the block that was submitted first.

        Raises:
          Exception: what the engine or storage raised; all blocks that were submitted are given up.
        """
        block = self._blocks[0]
        try:
            while block.rows_left or block.batches_pending:
                if len(self._pending) < self._engine.max_pending and self._start_batch():
                    continue
                self._finish_batch()
            result = block.writer.finish()
        except BaseException as error:
            for unfinished in self._blocks:
                unfinished.writer.abandon(error)
            raise
        self._blocks.popleft()
        return result

    def _start_batch(self) -> bool:
        """Gives the engine the next batch; False if no submitted row is left."""
        block = next((block for block in self._blocks if block.rows_left), None)
        if block is None:
            return False
        rows: list[tuple[Row, _KnownEmbedding | bytes]] = []
        images: list[np.ndarray] = []
        for row, known in block.rows:
            block.rows_left -= 1
            outcome = known or self._next_image(block.writer)
            if isinstance(outcome, LoadedImage):
                rows.append((row, outcome.digest))
                images.append(outcome.pixels)
                if len(images) == self._batch_size:
                    break
            elif isinstance(outcome, _KnownEmbedding):
                rows.append((row, outcome))
                if len(rows) - len(images) == _MAX_KNOWN_ROWS:
                    break
            else:
                block.writer.write_outcome(row, outcome)
                self._on_rows_done(1)
        if rows:
            block.batches_pending += 1
            embeddings = self._engine.start(np.stack(images)) if images else None
            self._pending.append(_PendingBatch(block, rows, embeddings))
        return True

    def _next_image(self, writer: BlockWriter) -> LoadedImage | _KnownEmbedding | RowFailure:
        started = time.perf_counter()
        image = self._loader.next()
        writer.waited_for_images_sec += time.perf_counter() - started
        if isinstance(image, KnownImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            return _KnownEmbedding(image.embedding, image.digest, FROM_CACHE)
        if isinstance(image, LoadedImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            writer.decode_sec += image.decode_sec
        return image

    def _finish_batch(self) -> None:
        """Waits for the oldest batch that the engine has, and writes its records."""
        batch = self._pending.popleft()
        writer = batch.block.writer
        computed: Iterator[Any] = iter(())
        if batch.embeddings is not None:
            started = time.perf_counter()
            embeddings = batch.embeddings.result()
            writer.waited_for_engine_sec += time.perf_counter() - started
            finite_rows = np.asarray(np.isfinite(embeddings).all(axis=1))
            computed = zip(embeddings, finite_rows, np.asarray(embeddings.any(axis=1)), strict=True)
        for row, known in batch.rows:
            if isinstance(known, _KnownEmbedding):
                writer.write_record(row, known.embedding, image_sha256=known.digest, source=known.source)
                continue
            embedding, finite, nonzero = next(computed)
            if not finite:
                writer.write_outcome(row, RowFailure("embed", "not_finite", "The embedding holds NaN or infinity."))
            elif not nonzero:
                writer.write_outcome(row, RowFailure("embed", "all_zero", "The embedding is all zero."))
            else:
                writer.write_record(row, embedding, image_sha256=known, source=COMPUTED)
                self._keep_embedding(known, embedding)
        batch.block.batches_pending -= 1
        self._on_rows_done(len(batch.rows))


def _known(row: Row, earlier: EarlierBlock) -> _KnownEmbedding | RowFailure | RowSkip | None:
    """How a row ends without its image being read; None if the image is needed."""
    if row.outcome is not None:
        return row.outcome
    failure = earlier.failures.get(row.line)
    if failure is not None:
        return failure
    record = earlier.records.get(row.uri)
    return _KnownEmbedding(record.embedding, record.image_sha256, FROM_EARLIER_RUN) if record is not None else None
