"""Embeds blocks of rows: reads and decodes ahead in threads, runs the backbone on full batches.

No Beam in here. Beam's local runner gives a stage one thread, and a Dataflow worker one for each core, so
what overlaps must overlap inside: while the backbone works on a batch, threads read and decode the rows that
follow, across the end of a block into the next. Reading waits for storage and decoding releases the GIL, so
threads do.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from preprocess.backbone_identity import BackboneIdentity
from preprocess.block_writer import BlockWriter
from preprocess.image import ImageError
from preprocess.outcomes import RowFailure
from preprocess.row_blocks import BlockResult, RowBlock
from preprocess.rows import Row, resolve_uri


class Embedder(Protocol):
    """What turns pixels into embeddings (`preprocess.backbone.Backbone`, or a stand-in)."""

    identity: BackboneIdentity

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, uint8 [n, height, width, 3], to embeddings, float32 [n, embedding_size]."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    pixels: np.ndarray
    read_sec: float
    decode_sec: float


class BlockEmbedder:
    """Embeds blocks in the order in which they are submitted.

    `submit` starts reading ahead; `complete_next` finishes the oldest block. Submit the next block before
    completing the one before it, and the machine does not idle between them. All calls from one thread.

    Args:
      read: location of an image to its bytes; raises RowFailure.
      decode: bytes to pixels, uint8 [height, width, 3]; raises ImageError.
      backbone: pixels to embeddings.
      open_writer: makes the writer of a block.
      pool: where `read` and `decode` run.
      batch_size: images a backbone call. Batches never span blocks, so that what else a bundle holds cannot
        change a block's numbers.
      max_in_flight: images read ahead, which bounds memory.
      on_rows_done: told how many rows have reached their outcome since the last call.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], bytes],
        decode: Callable[[bytes], np.ndarray],
        backbone: Embedder,
        open_writer: Callable[[RowBlock], BlockWriter],
        pool: concurrent.futures.Executor,
        batch_size: int,
        max_in_flight: int,
        on_rows_done: Callable[[int], None],
    ):
        self._read = read
        self._decode = decode
        self._backbone = backbone
        self._open_writer = open_writer
        self._pool = pool
        self._batch_size = batch_size
        self._max_in_flight = max_in_flight
        self._on_rows_done = on_rows_done
        self._blocks: collections.deque[RowBlock] = collections.deque()
        self._upcoming: collections.deque[Iterator[tuple[Row, str]]] = collections.deque()
        self._in_flight: collections.deque[concurrent.futures.Future[_Decoded]] = collections.deque()

    @property
    def submitted(self) -> int:
        """Blocks submitted and not yet completed."""
        return len(self._blocks)

    def submit(self, block: RowBlock) -> None:
        """Takes a block and starts on its images, as far as the read-ahead allows."""
        self._blocks.append(block)
        self._upcoming.append((row, block.list_path) for row in block.rows if row.outcome is None)
        self._read_ahead()

    def _read_ahead(self) -> None:
        while self._upcoming and len(self._in_flight) < self._max_in_flight:
            item = next(self._upcoming[0], None)
            if item is None:
                self._upcoming.popleft()
            else:
                row, list_path = item
                self._in_flight.append(self._pool.submit(self._load, resolve_uri(row.uri, list_path)))

    def _load(self, location: str) -> _Decoded:
        """Reads and decodes one image; runs in a thread of the pool."""
        started = time.perf_counter()
        try:
            data = self._read(location)
            read = time.perf_counter()
            pixels = self._decode(data)
        except ImageError as error:
            raise RowFailure("decode", error.reason, error.message) from error
        return _Decoded(pixels, read - started, time.perf_counter() - read)

    def complete_next(self) -> BlockResult:
        """Finishes the block that was submitted first."""
        block = self._blocks.popleft()
        with self._open_writer(block) as writer:
            batch: list[tuple[Row, np.ndarray]] = []
            for row in block.rows:
                outcome = row.outcome or self._next_decoded()
                if isinstance(outcome, _Decoded):
                    batch.append((row, outcome.pixels))
                    writer.read_sec += outcome.read_sec
                    writer.decode_sec += outcome.decode_sec
                    if len(batch) == self._batch_size:
                        self._embed(batch, writer)
                        batch.clear()
                elif isinstance(outcome, RowFailure):
                    writer.write_failure(row, outcome)
                    self._on_rows_done(1)
                else:
                    writer.write_skip(row, outcome)
                    self._on_rows_done(1)
            if batch:
                self._embed(batch, writer)
        return writer.result()

    def _next_decoded(self) -> _Decoded | RowFailure:
        """The outcome of the image that was read ahead first; its place goes to the next one."""
        future = self._in_flight.popleft()
        try:
            return future.result()
        except RowFailure as failure:
            return failure
        except Exception as error:
            # A reader or decoder that fails in a way nobody foresaw costs its own row, not the job.
            return RowFailure("decode", "unexpected_error", f"{type(error).__name__}: {error}")
        finally:
            self._read_ahead()

    def _embed(self, batch: list[tuple[Row, np.ndarray]], writer: BlockWriter) -> None:
        started = time.perf_counter()
        embeddings = self._backbone.embed(np.stack([pixels for _, pixels in batch]))
        writer.embed_sec += time.perf_counter() - started
        finite = np.asarray(np.isfinite(embeddings).all(axis=1))
        nonzero = np.asarray(embeddings.any(axis=1))
        for position, (row, _) in enumerate(batch):
            if not finite[position]:
                writer.write_failure(row, RowFailure("embed", "not_finite", "The embedding holds NaN or infinity."))
            elif not nonzero[position]:
                writer.write_failure(row, RowFailure("embed", "all_zero", "The embedding is all zero."))
            else:
                writer.write_record(row, embeddings[position])
        self._on_rows_done(len(batch))


def default_threads() -> int:
    """Threads that read and decode: enough to hide the latency of cloud storage on any number of cores."""
    return max(8, 2 * (os.cpu_count() or 1))
