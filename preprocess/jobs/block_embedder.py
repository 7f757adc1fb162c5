"""Embeds blocks of rows: reads and decodes images ahead in threads, and keeps the engine busy with full batches.

Some embeddings are known from an earlier run, from the cache, or of a row with the same image file. Their rows keep
their position in the list, but do not pass through the engine.

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
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from preprocess.engines.base import Engine
from preprocess.images.loader import FoundEmbedding, KnownImage, LoadedImage, Outcome
from preprocess.images.perceptual_hash import perceptual_hashes
from preprocess.jobs.block_results import COMPUTED, COPIED, FROM_CACHE, FROM_EARLIER_RUN, BlockResult
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.recent_embeddings import RecentEmbeddings
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


@dataclasses.dataclass(eq=False, slots=True)
class _Computing:
    """An image that the engine has; its outcome is None until its batch is finished."""

    digest: bytes
    outcome: np.ndarray | RowFailure | None = None
    image_hash: bytes = b""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _PendingBatch:
    """A batch of rows in order, each with its known embedding or its image.

    The image of a row may be one of an earlier row, in this batch or in one before it. `computing` are the images of
    this batch; their embeddings are in one batch of the engine for each view, which all have the same order. With those
    of view 0 come the hashes of the images, uint8 [n, 32], or None.
    """

    block: _OpenBlock
    rows: list[tuple[Row, _KnownEmbedding | _Computing]]
    computing: list[_Computing]
    views: list[concurrent.futures.Future[_OfBatch]]

    def embeddings(self) -> _OfBatch:
        """Waits for the engine: float32 [n, embedding_size], with several views [n, views, embedding_size]."""
        of_views, hashes = zip(*(view.result() for view in self.views), strict=True)
        return of_views[0] if len(of_views) == 1 else np.stack(of_views, axis=1), hashes[0]


class Loader(Protocol):
    """Loads images in the order in which their locations are added, as `ImageLoader` and `ParallelLoader` do."""

    def add(self, locations: Iterable[str]) -> None:
        """Adds images to the end of the queue."""

    def next(self) -> Outcome:
        """Waits for the next image; returns it, or its failure. Raises as `ImageLoader.next`."""


class BlockEmbedder:
    """Embeds blocks in the order in which they are submitted.

    `submit` starts to read images ahead. `complete_next` finishes the oldest block, and starts with the blocks after it
    meanwhile. The caller submits the next block before it completes the one before it, so that the machine is never
    idle between them. All calls come from one thread. `jobs.joint_embedder` drives several of them, a step of one and a
    step of another in turn.

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
      recent: the embeddings of this run in this process; new ones are added. None for those of this embedder.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        engine: Engine,
        open_writer: Callable[[RowBlock], BlockWriter],
        batch_size: int,
        on_rows_done: Callable[[int], None],
        keep_embedding: Callable[[bytes, np.ndarray, bytes], None] = lambda digest, embedding, image_hash: None,
        image_hashes: bool = False,
        views: Views | None = None,
        recent: RecentEmbeddings | None = None,
    ):
        self._loader = loader
        self._engine = engine
        self._open_writer = open_writer
        self._batch_size = batch_size
        self._on_rows_done = on_rows_done
        self._keep_embedding = keep_embedding
        self._image_hashes = image_hashes
        self._views = views
        self._recent = recent or RecentEmbeddings()
        # The images that the engine has, by digest. No other thread's: it could wait for this one in turn.
        self._computing: dict[bytes, _Computing] = {}
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
        for _, known in rows:
            if isinstance(known, _KnownEmbedding):
                self._recent.keep(known.digest, known.embedding, known.image_hash)
        self._blocks.append(_OpenBlock(writer, iter(rows), len(rows)))
        self._loader.add(resolve_uri(row.uri, block.list_path) for row, known in rows if known is None)

    def complete_next(self) -> BlockResult:
        """Finishes the block that was submitted first.

        Raises:
          Exception: the engine or storage raised it; all submitted blocks are abandoned.
        """
        try:
            while not self.next_is_done:
                self.step()
            return self.finish_next()
        except BaseException as error:
            self.abandon(error)
            raise

    @property
    def next_is_done(self) -> bool:
        """Whether all rows of the block that was submitted first have reached their outcome."""
        block = self._blocks[0]
        return not block.rows_left and not block.batches_pending

    @property
    def rows_left(self) -> int:
        """Rows of the submitted blocks that are not taken yet."""
        return sum(block.rows_left for block in self._blocks)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._pending) or any(block.rows_left for block in self._blocks)

    def step(self) -> None:
        """Gives the next batch to the engine if it takes one, otherwise waits for the oldest batch and writes it."""
        if len(self._pending) < self._max_pending and self._start_batch():
            return
        self._finish_batch()

    def finish_next(self) -> BlockResult:
        """The result of the block that was submitted first, all of whose rows are done."""
        result = self._blocks[0].writer.finish()
        self._blocks.popleft()
        return result

    def abandon(self, error: BaseException) -> None:
        """Stops writing all submitted blocks because of `error`."""
        for unfinished in self._blocks:
            unfinished.writer.abandon(error)

    def _start_batch(self) -> bool:
        """Gives the next batch to the engine. Returns False if no submitted row is left."""
        block = next((block for block in self._blocks if block.rows_left), None)
        if block is None:
            return False
        rows: list[tuple[Row, _KnownEmbedding | _Computing]] = []
        images: list[np.ndarray] = []
        computing: list[_Computing] = []
        for row, known in block.rows:
            block.rows_left -= 1
            outcome = known or self._next_image(block.writer)
            if isinstance(outcome, LoadedImage):
                image = _Computing(outcome.digest)
                rows.append((row, image))
                computing.append(image)
                images.append(outcome.pixels)
                self._computing[image.digest] = image
                if len(images) == self._batch_size:
                    break
            elif isinstance(outcome, _KnownEmbedding | _Computing):
                rows.append((row, outcome))
                if len(rows) - len(images) == _MAX_KNOWN_ROWS:
                    break
            else:
                block.writer.write_outcome(row, outcome)
                self._on_rows_done(1)
        if rows:
            block.batches_pending += 1
            views = self._start_views(images, [image.digest for image in computing])
            self._pending.append(_PendingBatch(block, rows, computing, views))
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

    def _next_image(self, writer: BlockWriter) -> LoadedImage | _KnownEmbedding | _Computing | RowFailure:
        started = time.perf_counter()
        image = self._loader.next()
        writer.waited_for_images_sec += time.perf_counter() - started
        if isinstance(image, KnownImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            (found,) = image.found
            self._recent.keep(image.digest, found.embedding, found.image_hash)
            source = COPIED if image.is_repeated else FROM_CACHE
            return _KnownEmbedding(found.embedding, image.digest, source, found.image_hash)
        if isinstance(image, LoadedImage):
            writer.read_sec += image.read_sec
            writer.read_bytes += image.num_bytes
            writer.decode_sec += image.decode_sec
            # It was decoded before the embedding of the same image was there.
            computing = self._computing.get(image.digest)
            if computing is not None:
                return computing
            recent = self._recent.find(image.digest)
            if recent is not None and (recent.image_hash or not self._image_hashes):
                return _KnownEmbedding(recent.embedding, image.digest, COPIED, recent.image_hash)
            if image.found and image.found[0] is not None:
                return self._completed(image, image.found[0])
        return image

    def _completed(self, image: LoadedImage, found: FoundEmbedding) -> _KnownEmbedding:
        """An embedding that was found for an image that was decoded all the same, with the hash of the image."""
        image_hash = found.image_hash
        if self._image_hashes and not image_hash:
            view_0 = image.pixels[np.newaxis] if self._views is None else image.pixels[:1]
            image_hash = perceptual_hashes(view_0).tobytes()
            self._keep_embedding(image.digest, found.embedding, image_hash)
        self._recent.keep(image.digest, found.embedding, image_hash)
        return _KnownEmbedding(found.embedding, image.digest, FROM_CACHE, image_hash)

    def _finish_batch(self) -> None:
        """Waits for the oldest batch in the engine, and writes its records."""
        batch = self._pending.popleft()
        writer = batch.block.writer
        if batch.views:
            started = time.perf_counter()
            embeddings, hashes = batch.embeddings()
            writer.waited_for_engine_sec += time.perf_counter() - started
            writer.last_batch_at = time.time()
            if not writer.first_batch_at:
                writer.first_batch_at, writer.first_batch_images = writer.last_batch_at, len(embeddings)
            each = [b""] * len(embeddings) if hashes is None else [of_one.tobytes() for of_one in hashes]
            for image, image_hash, outcome in zip(batch.computing, each, _outcomes(embeddings), strict=True):
                image.outcome, image.image_hash = outcome, image_hash
                del self._computing[image.digest]
                if not isinstance(image.outcome, RowFailure):
                    self._recent.keep(image.digest, image.outcome, image_hash)
                    self._keep_embedding(image.digest, image.outcome, image_hash)
        computed = set(batch.computing)
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
            # Batches are finished in the order in which they were started, so each image has its outcome by now.
            assert known.outcome is not None
            if isinstance(known.outcome, RowFailure):
                writer.write_outcome(row, known.outcome)
            else:
                source = COMPUTED if known in computed else COPIED
                computed.discard(known)
                writer.write_record(
                    row, known.outcome, image_sha256=known.digest, source=source, image_hash=known.image_hash
                )
        batch.block.batches_pending -= 1
        self._on_rows_done(len(batch.rows))


def _outcomes(embeddings: np.ndarray) -> Iterable[np.ndarray | RowFailure]:
    """The embedding of each image of a batch, or the failure of its rows.

    Args:
      embeddings: float32 [n, embedding_size] or [n, views, embedding_size].
    """
    # Of each row, or of each view of each row.
    finite = np.asarray(np.isfinite(embeddings).all(axis=-1))
    nonzero = np.asarray(embeddings.any(axis=-1))
    if finite.all() and nonzero.all():
        return embeddings
    return itertools.starmap(_outcome, zip(embeddings, finite, nonzero, strict=True))


def _outcome(embedding: np.ndarray, finite: np.ndarray, nonzero: np.ndarray) -> np.ndarray | RowFailure:
    """The embedding of an image, or the failure of its rows.

    Args:
      embedding: float32 [embedding_size] or [views, embedding_size].
      finite: bool [] or [views]: whether the numbers are finite.
      nonzero: bool [] or [views]: whether one of them is not zero.
    """
    if not finite.all():
        return RowFailure("embed", "not_finite", f"The embedding{_of_view(finite)} holds NaN or infinity.")
    if not nonzero.all():
        return RowFailure("embed", "all_zero", f"The embedding{_of_view(nonzero)} is all zero.")
    return embedding


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
