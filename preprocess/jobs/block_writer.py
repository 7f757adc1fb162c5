"""Writes the output of one block of rows: its records, its failed and skipped rows, and last its result.

Records are written to the shard as they arrive. On a local disk a run that is stopped leaves the records that it had
written, and the next run uses them (`preprocess.jobs.resume`).
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import hashlib
import io
import struct
import uuid
from typing import Any, BinaryIO

import numpy as np

from configs.choices import Compression
from configs.json_text import json_line
from preprocess.engines.base import EmbeddingSource
from preprocess.jobs.block_results import BlockResult, PartFile, StoredResult
from preprocess.jobs.job import RESULT_SUFFIX
from preprocess.jobs.resume import engine_tag
from preprocess.jobs.set_files import name_of_part
from preprocess.lists.blocks import RowBlock
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row
from preprocess.records.duplicates import label_key
from preprocess.records.example import encode_example
from preprocess.records.tfrecord import frame_record
from preprocess.storage.base import Storage, write_file

# Embeddings look like noise to gzip: level 1 saves as much as level 9, and is several times faster.
_GZIP_LEVEL = 1

_CONTENT = struct.Struct("<16sQ")


class HashingStream(io.RawIOBase):
    """Passes bytes on, and counts and hashes them."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def write(self, data: Any) -> int:
        """Writes all of it."""
        self._stream.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self.num_bytes += size
        return size

    @property
    def sha256(self) -> str:
        """The digest of what was written: 64 hex digits."""
        return self._digest.hexdigest()


class _PartWriter:
    """Writes one part file, which is created with its first record."""

    def __init__(self, storage: Storage, path: str, compression: Compression = "none", *, keep_partial: bool = False):
        self._storage = storage
        self._keep_partial = keep_partial
        self._path = path
        self._name = name_of_part(path)
        self._compression = compression
        self._stack = contextlib.ExitStack()
        self._hashing: HashingStream | None = None
        self._stream: Any = None
        self._records = 0

    def write(self, data: bytes) -> None:
        if self._hashing is None:
            self._hashing = HashingStream(
                self._stack.enter_context(
                    self._storage.create(self._path, keep_partial=self._keep_partial, durable=False)
                )
            )
            self._stream = self._hashing
            if self._compression == "gzip":
                # No name and no time in the header: the same records give the same bytes.
                self._stream = self._stack.enter_context(
                    gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=self._hashing, mtime=0)
                )
        self._stream.write(data)
        self._records += 1

    def close(self) -> PartFile | None:
        self._stack.close()
        if self._hashing is None:
            return None
        return PartFile(self._name, self._records, self._hashing.num_bytes, self._hashing.sha256)

    def abandon(self, error: BaseException) -> None:
        self._stack.__exit__(type(error), error, error.__traceback__)


class BlockWriter:
    """Collects the outcomes of one block's rows, in the order of the rows.

    The caller ends with `finish` when every row has its outcome, or with `abandon`, which keeps files for a later run.

    Attributes: the times and bytes of `BlockResult` that have the same names. The caller counts them.
    """

    def __init__(
        self,
        block: RowBlock,
        *,
        storage: Storage,
        parts_dir: str,
        compression: Compression,
        engine: EmbeddingSource,
    ):
        # The name is unique, so that a second attempt at a block never writes to the files of the first one.
        path = f"{parts_dir}/{block.name}-{engine_tag(engine)}-{uuid.uuid4().hex[:12]}"
        self._storage = storage
        self._result_path = f"{path}{RESULT_SUFFIX}"
        self._block = block
        self._engine = engine
        self._shard = _PartWriter(
            storage,
            f"{path}.tfrecord{'.gz' if compression == 'gzip' else ''}",
            compression,
            keep_partial=True,
        )
        self._failed_ledger = _PartWriter(storage, f"{path}.failed.jsonl")
        self._skipped_ledger = _PartWriter(storage, f"{path}.skipped.jsonl")
        self._failures: list[tuple[Row, RowFailure]] = []
        self._skips: list[tuple[Row, RowSkip]] = []
        self._label_counts: collections.Counter[int] = collections.Counter()
        self._sources: collections.Counter[str] = collections.Counter()
        self._content: list[bytes] = []
        self._unlabeled = 0
        self.read_bytes = 0
        self.read_sec = 0.0
        self.decode_sec = 0.0
        self.waited_for_images_sec = 0.0
        self.waited_for_engine_sec = 0.0
        self.first_batch_at = 0.0
        self.first_batch_images = 0
        self.last_batch_at = 0.0

    def finish(self) -> BlockResult:
        """Completes the files. The caller calls it when every row has its outcome.

        Raises:
          OSError: storage failed.
        """
        self._write_rows_without_record()
        shard, failed_ledger, skipped_ledger = (writer.close() for writer in self._writers())
        result = BlockResult(
            order=(self._block.list_index, self._block.block_index),
            rows=len(self._block.rows),
            sources=dict(self._sources),
            failed=dict(collections.Counter(failure.reason for _, failure in self._failures)),
            skipped=dict(collections.Counter(skip.rule for _, skip in self._skips)),
            label_counts=dict(self._label_counts),
            unlabeled=self._unlabeled,
            content=b"".join(self._content),
            shard=shard,
            failed_ledger=failed_ledger,
            skipped_ledger=skipped_ledger,
            backbone=self._engine.identity,
            engine=self._engine.info,
            read_bytes=self.read_bytes,
            read_sec=self.read_sec,
            decode_sec=self.decode_sec,
            waited_for_images_sec=self.waited_for_images_sec,
            waited_for_engine_sec=self.waited_for_engine_sec,
            first_batch_at=self.first_batch_at,
            first_batch_images=self.first_batch_images,
            last_batch_at=self.last_batch_at,
            stored=StoredResult(name_of_part(self._result_path)),
        )
        # The result is written last, so the files that it names are complete if it exists. None of them has to be
        # durable: rows that a power cut takes away are embedded again, and the commit begins with a durable file.
        write_file(self._storage, self._result_path, result.to_json_line(), durable=False)
        return result

    def abandon(self, error: BaseException) -> None:
        """Stops writing because of `error`."""
        for writer in self._writers():
            with contextlib.suppress(BaseException):
                writer.abandon(error)

    def _writers(self) -> tuple[_PartWriter, ...]:
        return self._shard, self._failed_ledger, self._skipped_ledger

    def _write_rows_without_record(self) -> None:
        # Outcomes arrive when batches are complete, but the files have the order of the list.
        for row, failure in sorted(self._failures, key=lambda entry: entry[0].line):
            self._failed_ledger.write(
                self._json_line_of(row, stage=failure.stage, reason=failure.reason, message=failure.message)
            )
        for row, skip in self._skips:
            self._skipped_ledger.write(self._json_line_of(row, rule=skip.rule, message=skip.message))

    def write_record(
        self,
        row: Row,
        embedding: np.ndarray,
        *,
        image_sha256: bytes,
        source: str,
        content_sha256: bytes | None = None,
        image_hash: bytes = b"",
    ) -> None:
        """Writes the record of a row.

        Args:
          row: the row.
          embedding: float32 [embedding_size]; of several views [views, embedding_size].
          image_sha256: SHA-256 of the image file, 32 bytes; empty if the image was not read.
          source: the source of the embedding, one of those that `BlockResult.sources` counts.
          content_sha256: of what tells whether two records are of one image, if the image was not read.
          image_hash: the perceptual hash of the image, 32 bytes; empty for a record without one.
        """
        has_views = embedding.ndim == 2
        example = encode_example(
            image_uri=row.uri,
            embedding=embedding[0] if has_views else embedding,
            label_ids=row.label_ids,
            image_sha256=image_sha256,
            image_hash=image_hash,
            view_embeddings=embedding[1:] if has_views else None,
        )
        self._shard.write(frame_record(example))
        content = image_sha256 if content_sha256 is None else content_sha256
        self._content.append(_CONTENT.pack(content[:16], label_key(row.label_ids)))
        self._sources[source] += 1
        self._label_counts.update(row.label_ids)
        self._unlabeled += not row.label_ids

    def write_outcome(self, row: Row, outcome: RowFailure | RowSkip) -> None:
        """Notes a row that does not become a record, for the dead letters or for the skipped rows."""
        if isinstance(outcome, RowFailure):
            self._failures.append((row, outcome))
        else:
            self._skips.append((row, outcome))

    def _json_line_of(self, row: Row, **why: str) -> bytes:
        entry = {
            "uri": row.uri,
            "labels": list(row.labels),
            "list": self._block.list_path,
            "line": row.line,
            **why,
        }
        return json_line(entry)
