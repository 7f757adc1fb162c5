"""Embeds blocks of rows: reads and decodes images ahead in threads, and keeps the engine busy with full batches.

Some embeddings are known from an earlier run or from the cache. Their rows keep their position in the list, but do not
pass through the engine.

This module does not use Beam. Beam's local runner gives a stage one thread, and a Dataflow worker gives it one for each
core. So work must overlap inside the stage: while the engine works on its batches, threads read and decode the next
rows, also those of the next block. Threads are enough, because reading waits for storage and decoding happens in child
processes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from preprocess.engines.base import Engine
from preprocess.images.loader import ImageLoader, KnownImage, LoadedImage
from preprocess.images.parallel_loader import ParallelLoader
from preprocess.images.perceptual_hash import perceptual_hashes
from preprocess.jobs.block_results import COMPUTED, FROM_CACHE, FROM_EARLIER_RUN, BlockResult
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.resume import NOTHING_KNOWN, ResumedBlock
from preprocess.lists.blocks import RowBlock
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row
from preprocess.records.views import Views
from preprocess.storage.uris import resolve_uri

# The embeddings of one view of a batch, and the hashes of its images if they are wanted.
_OfBatch = tuple[np.ndarray, np.ndarray | None]

# The largest number of rows with known embeddings that are written together with a batch.
_MAX_KNOWN_ROWS = 256


@dataclasses.dataclass(eq=False, slots=True)
class _OpenBlock:
    """A block that is being embedded: its rows that are not taken yet, and the number of its batches in the engine."""

    writer: BlockWriter
    rows: Iterator[tuple[Row, _KnownEmbedding | RowFailure | RowSkip | None]]
    rows_left: int
    batches_pending: int = 0


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _KnownEmbedding:
    """An embedding that does not have to be computed: float32 [embedding_size] or [views, embedding_size]."""

    embedding: np.ndarray
    digest: bytes
    source: str
    image_hash: bytes


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _PendingBatch:
    """A batch of rows in order, each with its known embedding or, if the engine computes it, the image's digest.

    The embeddings of the images are in one batch of the engine for each view, which all have the order of the rows.
    With those of view 0 come the hashes of the images, uint8 [n, 32], or None.
    """

    block: _OpenBlock
    rows: list[tuple[Row, _KnownEmbedding | bytes]]
    views: list[concurrent.futures.Future[_OfBatch]]

    def embeddings(self) -> _OfBatch:
        """Waits for the engine: float32 [n, embedding_size], with several views [n, views, embedding_size]."""
        of_views, hashes = zip(*(view.result() for view in self.views), strict=True)
        return of_views[0] if len(of_views) == 1 else np.stack(of_views, axis=1), hashes[0]


class BlockEmbedder:
    """Embeds blocks in the order in which they are submitted.

    `submit` starts to read images ahead. `complete_next` finishes the oldest block, and starts with the blocks after it
    meanwhile. The caller submits the next block before it completes the one before it, so that the machine is never
    idle between them. All calls come from one thread.

    Args:
      loader: reads and decodes images in threads.
      engine: computes embeddings from pixels.
      open_writer: makes the writer of a block.
      batch_size: images in a batch. A batch never has images of two blocks, so that the numbers of a block do not
        depend on other blocks.
      views: the views that the loader gives of each image; None for one. A batch has one view of its images, so that
        the batches of view 0 are those of a job without views.
      on_rows_done: is called with the number of rows that have reached their outcome since the last call.
      keep_embedding: is called with the digest, the embedding and the hash of each image of which one was computed.
      image_hashes: whether records have the perceptual hashes of their images; else hashes are empty.
    """

    def __init__(
        self,
        *,
        loader: ImageLoader | ParallelLoader,
        engine: Engine,
        open_writer: Callable[[RowBlock], BlockWriter],
        batch_size: int,
        on_rows_done: Callable[[int], None],
        keep_embedding: Callable[[bytes, np.ndarray, bytes], None] = lambda digest, embedding, image_hash: None,
        image_hashes: bool = False,
        views: Views | None = None,
    ):
        self._loader = loader
        self._engine = engine
        self._open_writer = open_writer
        self._batch_size = batch_size
        self._on_rows_done = on_rows_done
        self._keep_embedding = keep_embedding
        self._image_hashes = image_hashes
        self._views = views
        # One that is finished, and others that keep the engine busy meanwhile, each with a batch for each view.
        self._max_pending = 1 + math.ceil((engine.max_pending - 1) / (1 if views is None else views.count))
        self._blocks: collections.deque[_OpenBlock] = collections.deque()
        self._pending: collections.deque[_PendingBatch] = collections.deque()
        self._batches = concurrent.futures.ThreadPoolExecutor(engine.max_pending, "batch")
        # Lists are safe to push to and pop from in several threads.
        self._buffers: list[np.ndarray] = []

    @property
    def submitted(self) -> int:
        """Blocks submitted and not yet completed."""
        return len(self._blocks)

    def submit(self, block: RowBlock, earlier: ResumedBlock = NOTHING_KNOWN) -> None:
        """Takes a block and starts to read its images, within the limit for reading ahead.

        Args:
          block: the block.
          earlier: what earlier runs left of it; images whose record is known are not read.
        """
        writer = self._open_writer(block)
        rows = [(row, _known(row, earlier)) for row in block.rows]
        self._blocks.append(_OpenBlock(writer, iter(rows), len(rows)))
        self._loader.add(resolve_uri(row.uri, block.list_path) for row, known in rows if known is None)

    def complete_next(self) -> BlockResult:
        """Finishes the block that was submitted first.

        Raises:
          Exception: the engine or storage raised it; all submitted blocks are abandoned.
        """
        block = self._blocks[0]
        try:
            while block.rows_left or block.batches_pending:
                if len(self._pending) < self._max_pending and self._start_batch():
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
        """Gives the next batch to the engine. Returns False if no submitted row is left."""
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
            digests = [known for _, known in rows if isinstance(known, bytes)]
            self._pending.append(_PendingBatch(block, rows, self._start_views(images, digests)))
        return True

    def _start_views(self, images: list[np.ndarray], digests: list[bytes]) -> list[concurrent.futures.Future[_OfBatch]]:
        """Gives the images of a batch to the engine, once for each view."""
        if not images:
            return []
        if self._views is None:
            return [self._batches.submit(self._embed, images, hashes=self._image_hashes)]
        started = []
        for view in range(self._views.count):
            brightness = None
            if view and self._views.random_brightness:
                size = images[0].shape[1]
                drawn = [self._views.distortion(digest, view, size=size).brightness for digest in digests]
                brightness = np.array(drawn, np.float32)
            pixels = [image[view] for image in images]
            hashes = self._image_hashes and view == 0
            started.append(self._batches.submit(self._embed, pixels, brightness, hashes=hashes))
        return started

    def _embed(
        self, images: list[np.ndarray], brightness: np.ndarray | None = None, *, hashes: bool = False
    ) -> _OfBatch:
        """The embeddings of a batch. Runs in a thread for each batch: copying the pixels of 256 images takes 30 ms."""
        # Used again: the kernel takes longer to provide 70 MB of new memory than the pixels take to be copied.
        buffer = None
        with contextlib.suppress(IndexError):
            buffer = self._buffers.pop()
        if buffer is None or len(buffer) < len(images) or buffer.shape[1:] != images[0].shape:
            buffer = np.empty((len(images), *images[0].shape), np.uint8)
        pixels = np.stack(images, out=buffer[: len(images)])
        images.clear()  # Their memory may be wanted for the next ones.
        factors = () if brightness is None else (brightness,)
        started = self._engine.start(pixels, *factors)
        found = perceptual_hashes(pixels) if hashes else None
        embeddings = started.result()
        self._buffers.append(buffer)
        return embeddings, found

    def _next_image(self, writer: BlockWriter) -> LoadedImage | _KnownEmbedding | RowFailure:
        started = time.perf_counter()
        image = self._loader.next()
        writer.waited_for_images_sec += time.perf_counter() - started
        if isinstance(image, KnownImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            writer.decode_sec += image.decode_sec
            found = image.found
            if image.decode_sec:
                self._keep_embedding(image.digest, found.embedding, found.image_hash)
            return _KnownEmbedding(found.embedding, image.digest, FROM_CACHE, found.image_hash)
        if isinstance(image, LoadedImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            writer.decode_sec += image.decode_sec
        return image

    def _finish_batch(self) -> None:
        """Waits for the oldest batch in the engine, and writes its records."""
        batch = self._pending.popleft()
        writer = batch.block.writer
        computed: Iterator[Any] = iter(())
        if batch.views:
            started = time.perf_counter()
            embeddings, hashes = batch.embeddings()
            writer.waited_for_engine_sec += time.perf_counter() - started
            writer.last_batch_at = time.time()
            if not writer.first_batch_at:
                writer.first_batch_at, writer.first_batch_images = writer.last_batch_at, len(embeddings)
            # Of each row, or of each view of each row.
            finite_rows = np.asarray(np.isfinite(embeddings).all(axis=-1))
            each = [b""] * len(embeddings) if hashes is None else [of_one.tobytes() for of_one in hashes]
            computed = zip(embeddings, each, finite_rows, np.asarray(embeddings.any(axis=-1)), strict=True)
        for row, known in batch.rows:
            if isinstance(known, _KnownEmbedding):
                writer.write_record(
                    row,
                    known.embedding,
                    image_sha256=known.digest,
                    source=known.source,
                    image_hash=known.image_hash if self._image_hashes else b"",
                )
                continue
            embedding, image_hash, finite, nonzero = next(computed)
            if not finite.all():
                words = f"The embedding{_of_view(finite)} holds NaN or infinity."
                writer.write_outcome(row, RowFailure("embed", "not_finite", words))
            elif not nonzero.all():
                words = f"The embedding{_of_view(nonzero)} is all zero."
                writer.write_outcome(row, RowFailure("embed", "all_zero", words))
            else:
                writer.write_record(row, embedding, image_sha256=known, source=COMPUTED, image_hash=image_hash)
                self._keep_embedding(known, embedding, image_hash)
        batch.block.batches_pending -= 1
        self._on_rows_done(len(batch.rows))


def _of_view(is_good: np.ndarray) -> str:
    """Which view is bad, as words for people; empty if the image has one view."""
    return f" of view {int(np.argmin(is_good))}" if is_good.ndim else ""


def _known(row: Row, earlier: ResumedBlock) -> _KnownEmbedding | RowFailure | RowSkip | None:
    """The outcome or the embedding of a row if it is known without reading the image; otherwise None."""
    if row.outcome is not None:
        return row.outcome
    failure = earlier.failures.get(row.line)
    if failure is not None:
        return failure
    record = earlier.records.get(row.uri)
    if record is None:
        return None
    return _KnownEmbedding(record.embeddings, record.image_sha256, FROM_EARLIER_RUN, record.image_hash)
