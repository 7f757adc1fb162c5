"""Looks up what a finished set says of its blocks and of its failed rows, without holding all of it in memory.

The two files are read once. What is kept of them is where each entry lies, and the files stay open.
"""

from __future__ import annotations

import array
import collections
import contextlib
import json
import weakref
from typing import BinaryIO

import numpy as np

from preprocess.jobs.block_results import BlockResult
from preprocess.jobs.job import JOURNAL_NAME
from preprocess.jobs.set_files import places_of_results
from preprocess.lists.blocks import RowBlock
from preprocess.lists.outcomes import RowFailure
from preprocess.records.record_set import FAILED_NAME, sidecar_path
from preprocess.storage.base import Storage


class FinishedBlocks:
    """The results of the blocks of a finished set.

    Args:
      prefix: of the set.
      storage: where it lies.

    Raises:
      InputError: the set has no such file, it is damaged, or it names files that do not belong to the set.
      OSError: storage failed.
    """

    def __init__(self, prefix: str, storage: Storage):
        self._path = sidecar_path(prefix, JOURNAL_NAME)
        self._places = {
            result.order: (offset, size) for offset, size, result in places_of_results(self._path, prefix, storage)
        }
        self._stream = _kept_open(self, storage, self._path)

    def find(self, block: RowBlock) -> BlockResult | None:
        """The result of a block; None if the set has no such block."""
        place = self._places.get((block.list_index, block.block_index))
        return None if place is None else BlockResult.from_json(_line_at(self._stream, *place), where=self._path)


class DeadLetters:
    """The failures of a finished set. Rows whose entry cannot be read are left out.

    Args:
      prefix: of the set.
      storage: where it lies.

    Raises:
      OSError: storage failed.
    """

    def __init__(self, prefix: str, storage: Storage):
        found: dict[str, tuple[array.array[int], array.array[int]]] = collections.defaultdict(
            lambda: (array.array("q"), array.array("q"))
        )
        path = sidecar_path(prefix, FAILED_NAME)
        self._stream: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            self._stream = _kept_open(self, storage, path)
        offset = 0
        for text in self._stream or ():
            entry = _entry(text)
            if entry is not None:
                lines, offsets = found[entry[0]]
                lines.append(entry[1])
                offsets.append(offset)
            offset += len(text)
        self._places = {}
        for list_path, (lines, offsets) in found.items():
            order = np.argsort(np.asarray(lines), kind="stable")
            self._places[list_path] = (np.asarray(lines)[order], np.asarray(offsets)[order])

    def failures_of(self, block: RowBlock) -> dict[int, RowFailure]:
        """The failures of the rows of a block, by line."""
        if self._stream is None or block.list_path not in self._places:
            return {}
        lines, offsets = self._places[block.list_path]
        failures = {}
        for row in block.rows:
            # The last one, if an edited file has several.
            at = int(np.searchsorted(lines, row.line, side="right")) - 1
            if at >= 0 and lines[at] == row.line:
                self._stream.seek(int(offsets[at]))
                entry = _entry(self._stream.readline())
                if entry is not None:
                    failures[row.line] = entry[2]
        return failures


def _kept_open(owner: object, storage: Storage, path: str) -> BinaryIO:
    """Opens a file, which is closed together with its owner. Storage gives a stream that can be read anywhere."""
    stream = storage.open(path)
    weakref.finalize(owner, stream.close)
    return stream


def _line_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _entry(text: bytes) -> tuple[str, int, RowFailure] | None:
    """The list, the line and the failure of an entry; None if it cannot be read."""
    try:
        entry = json.loads(text)
        list_path, line = entry["list"], entry["line"]
        if not isinstance(list_path, str) or type(line) is not int or abs(line) >= 1 << 62:
            return None
        return list_path, line, RowFailure(entry["stage"], entry["reason"], entry["message"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
