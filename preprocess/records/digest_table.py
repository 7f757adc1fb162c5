"""Finds duplicates among any number of records: their digests lie on the disk, and a part of them at a time in memory.

Records are divided into parts by one byte of their digests, so equal images are in one part. Each part is searched with
`preprocess.records.duplicates`. The groups that are found are divided again, by the position of their first record, so
that they come out in the order of the set. Of 50 million records a part has 25 MB. An image that N records have needs
about 100 N bytes while its part is searched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np

from preprocess.records.duplicates import DIGEST_BYTES, Duplicates, find_duplicates, find_shared

_PARTS = 64
# `find_duplicates` divides what it gets by the first byte, so this is another one.
_PART_BYTE = 1
# Each part is kept in memory until it is larger. So small sets need no disk.
_PART_MEMORY_BYTES = 512 * 1024
# Records that are divided at once: written one block after the other, they would be millions of small pieces.
_ADDED_AT_ONCE = 1 << 16


class _Parts:
    """Rows of numbers, each in one of `_PARTS` files: uint64 [n, width]. A file is in memory while it is small."""

    def __init__(self, width: int, *, folder: str | None):
        self._width = width
        self._folder = folder
        self._files: dict[int, BinaryIO] = {}  # Of the parts that have rows.

    def _file(self, part: int) -> BinaryIO:
        if part not in self._files:
            file = tempfile.SpooledTemporaryFile(max_size=_PART_MEMORY_BYTES, dir=self._folder)  # noqa: SIM115 (see close)
            self._files[part] = cast(BinaryIO, file)
        return self._files[part]

    def add(self, rows: np.ndarray, part_of: np.ndarray) -> None:
        """Adds rows, each to the part whose number is given: uint64 [n, width], and whole numbers [n]."""
        order = np.argsort(part_of, kind="stable")
        ends = np.cumsum(np.bincount(part_of, minlength=_PARTS))
        rows = rows[order]
        start = 0
        for part, end in enumerate(ends.tolist()):
            if end > start:
                self._file(part).write(rows[start:end].tobytes())
            start = end

    def read(self, part: int) -> np.ndarray:
        """The rows of a part in the order in which they were added: uint64 [n, width]."""
        if part not in self._files:
            return np.empty((0, self._width), np.uint64)
        stream = self._files[part]
        stream.seek(0)
        rows = np.frombuffer(stream.read(), np.uint64).reshape(-1, self._width)
        stream.seek(0, 2)
        return rows

    def close(self) -> None:
        for stream in self._files.values():
            stream.close()


def _digests_of(rows: np.ndarray) -> np.ndarray:
    """The digests in rows of a table: uint8 [n, 16]."""
    return np.ascontiguousarray(rows[:, :2]).view(np.uint8)


class DuplicateGroups:
    """The groups of records of one image, in the order of their first records.

    Attributes:
      num_groups: images that more than one record has.
      num_extra: records after the first of each group.
      num_conflicting: groups whose labels differ.
    """

    def __init__(self, found: Iterator[tuple[np.ndarray, Duplicates]], *, records: int, folder: str | None):
        self._parts = _Parts(3, folder=folder)  # First position of the group, position, whether its labels differ.
        self.num_groups = self.num_extra = self.num_conflicting = 0
        for positions, duplicates in found:
            self.num_groups += duplicates.num_groups
            self.num_extra += duplicates.num_extra
            self.num_conflicting += duplicates.num_conflicting
            members = positions[duplicates.members]
            lengths = np.diff(duplicates.splits)
            firsts = np.repeat(members[duplicates.splits[:-1]], lengths)
            differ = np.repeat(duplicates.labels_differ, lengths).astype(np.uint64)
            part_of = (firsts * np.uint64(_PARTS) // np.uint64(records)).astype(np.int64)
            self._parts.add(np.stack([firsts, members, differ], axis=1), part_of)

    def in_order(self) -> Iterator[Duplicates]:
        """The groups, some at a time; it can be iterated again."""
        for part in range(_PARTS):
            rows = self._parts.read(part)
            if len(rows):
                rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
                starts = np.flatnonzero(np.diff(rows[:, 0], prepend=rows[:1, 0] + np.uint64(1)))
                yield Duplicates(
                    members=rows[:, 1].astype(np.int64),
                    splits=np.append(starts, len(rows)).astype(np.int64),
                    labels_differ=rows[starts, 2].astype(bool),
                )

    def close(self) -> None:
        """Deletes the temporary files."""
        self._parts.close()


class DigestTable:
    """The digests of the records of a set, in order. It is a context, which deletes the temporary files at its end.

    Args:
      folder: for temporary files, which no other process sees; None for the folder of the system.

    Attributes:
      records: the number of records that were added.
    """

    def __init__(self, *, folder: str | None = None):
        self._folder = folder
        self._parts = _Parts(4, folder=folder)  # Two words of the digest, key of the labels, position.
        self._added: list[np.ndarray] = []
        self._num_added = 0
        self.records = 0
        self._to_close: list[Callable[[], None]] = [self._parts.close]

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for close in self._to_close:
            close()

    def add(self, digests: np.ndarray, label_keys: np.ndarray) -> None:
        """Adds the next records of the set.

        Args:
          digests: uint8 [n, 16], first bytes of the SHA-256 of each record's image file.
          label_keys: uint64 [n], `label_key` of each record's labels.
        """
        rows = np.empty((len(digests), 4), np.uint64)
        rows[:, :2] = np.ascontiguousarray(digests).view(np.uint64).reshape(-1, DIGEST_BYTES // 8)
        rows[:, 2] = label_keys
        rows[:, 3] = np.arange(self.records, self.records + len(digests), dtype=np.uint64)
        self.records += len(digests)
        self._added.append(rows)
        self._num_added += len(rows)
        if self._num_added >= _ADDED_AT_ONCE:
            self._divide()

    def _divide(self) -> None:
        if self._num_added:
            rows = np.concatenate(self._added)
            self._parts.add(rows, _digests_of(rows)[:, _PART_BYTE].astype(np.int64) % _PARTS)
            self._added, self._num_added = [], 0

    def _read_part(self, part: int) -> np.ndarray:
        self._divide()
        return self._parts.read(part)

    def find_duplicates(self) -> DuplicateGroups:
        """Finds the records whose image other records of the set have too."""
        groups = DuplicateGroups(self._duplicates_by_part(), records=self.records, folder=self._folder)
        self._to_close.append(groups.close)
        return groups

    def _duplicates_by_part(self) -> Iterator[tuple[np.ndarray, Duplicates]]:
        for part in range(_PARTS):
            rows = self._read_part(part)
            if len(rows):
                yield rows[:, 3], find_duplicates(_digests_of(rows), np.ascontiguousarray(rows[:, 2]))

    def find_shared(self, other: DigestTable) -> np.ndarray:
        """Finds the records whose image is also in another set: bool [records]."""
        is_shared = np.zeros(self.records, bool)
        for part in range(_PARTS):
            rows, others = self._read_part(part), other._read_part(part)
            if len(rows) and len(others):
                shared = find_shared(_digests_of(rows), _digests_of(others))
                is_shared[rows[shared, 3].astype(np.int64)] = True
        return is_shared
