"""The results of all blocks for the last step of a job: what they say of each record lies on the disk.

A result has 24 bytes for each record, and a count for each of its labels. With 50 million records that is some
gigabytes. The rest, about 2 KB a block, is kept in memory.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np

from preprocess.jobs.block_results import CONTENT_DTYPE, BlockResult
from preprocess.jobs.job import Job
from preprocess.storage.uris import has_scheme

# Below this size everything stays in memory: about a million records.
_MEMORY_BYTES = 32 * 1024 * 1024


def temporary_folder(job: Job) -> str | None:
    """The folder for large temporary files of a job: beside its parts, where there is room; None for the system's."""
    return job.parts_dir if not has_scheme(job.parts_dir) and os.path.isdir(job.parts_dir) else None


class SpooledResults:
    """The results of blocks in the order of the lists. It is a context, which deletes the temporary file at its end.

    Args:
      results: of all blocks, in any order; they are taken one after the other.
      folder: for a temporary file, which no other process sees; None for the folder of the system.

    Attributes:
      summaries: the results in order, without `content` and `label_counts`.
      label_counts: the sum of their `label_counts`.
    """

    def __init__(self, results: Iterable[BlockResult], *, folder: str | None = None):
        self._file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=folder))  # noqa: SIM115 (closed with its owner)
        self.label_counts: collections.Counter[int] = collections.Counter()
        same: dict[Any, Any] = {}  # Each unpickled result has a network and an engine of its own.
        found: list[tuple[BlockResult, int, int]] = []
        try:
            offset = 0
            for result in results:
                # It is read back by this process only, from a file without a name.
                size = self._file.write(pickle.dumps((result.content, dict(result.label_counts))))
                self.label_counts.update(result.label_counts)
                summary = dataclasses.replace(
                    result.summary(),
                    backbone=same.setdefault(result.backbone, result.backbone),
                    engine=same.setdefault(result.engine, result.engine),
                )
                found.append((summary, offset, size))
                offset += size
        except BaseException:
            self._file.close()
            raise
        found.sort(key=lambda entry: entry[0].order)
        self.summaries = [summary for summary, _, _ in found]
        self._places = [(offset, size) for _, offset, size in found]

    def __enter__(self) -> SpooledResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def whole(self) -> Iterator[BlockResult]:
        """The results in order, as they were given."""
        for summary, place in zip(self.summaries, self._places, strict=True):
            content, label_counts = self._read(*place)
            yield dataclasses.replace(summary, content=content, label_counts=label_counts)

    def contents(self) -> Iterator[np.ndarray]:
        """The digests of the records of each block, in order: `CONTENT_DTYPE`, shape [records of the block]."""
        for place in self._places:
            yield np.frombuffer(self._read(*place)[0], CONTENT_DTYPE)

    def _read(self, offset: int, size: int) -> tuple[bytes, dict[int, int]]:
        self._file.seek(offset)
        return cast(tuple[bytes, dict[int, int]], pickle.loads(self._file.read(size)))
