"""The interface `Storage`: the file operations that the pipeline needs; and the storage of local disks.

All code that uses files takes a `Storage`. So the same code works on local disks, in buckets, and with all filesystems
that Beam has (`preprocess.beam.beam_storage`).
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

from preprocess.storage.durable import FolderChanges, make_folders, sync_folder

PARTIAL_SUFFIX = ".partial"


class TooLarge(OSError):  # noqa: N818 (the name says what is wrong)
    """A file has more bytes than its reader allows."""

    def __init__(self, path: str, max_bytes: int):
        super().__init__(f"{path} has more than {max_bytes} bytes")


class Storage(Protocol):
    """The operations on files that the pipeline needs to read lists and to commit a set of records.

    Paths are local paths or URIs with a scheme. Faults raise OSError; a missing file raises FileNotFoundError.

    After a power cut, the operations are visible in their order: if an operation is visible, all operations before it
    are visible too. There are three exceptions: several moves, several deletions, and files that are not `durable` may
    become visible in any order.
    """

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading."""
        ...

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Reads a whole file. Raises TooLarge if it has more than `max_bytes` bytes, without reading them all."""
        ...

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        """Reads a range of a file, and less if the file ends before."""
        ...

    def create(
        self, path: str, *, keep_partial: bool = False, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """Opens a new file for writing, and creates the folders above it. The file is complete when it is closed.

        With `keep_partial`, the bytes that were written before a fault stay under `path` + `PARTIAL_SUFFIX`, if the
        storage supports that. With `durable`, a closed file survives a power cut. Without it, a power cut may remove
        the file until the next durable change; but it never leaves an incomplete file.
        """
        ...

    def create_new(self, path: str, data: bytes) -> bool:
        """Writes a whole file if none exists, else returns False. Of several callers at once, one gets True."""
        ...

    def match(self, pattern: str) -> list[str]:
        """The files that match a path or glob, sorted; empty if there are none."""
        ...

    def sizes(self, pattern: str) -> dict[str, int]:
        """The files that match a path or glob, as in `match`, each with its size in bytes."""
        ...

    def move(self, source: str, target: str) -> None:
        """Moves one file, and replaces a file at the target."""
        ...

    def delete_file(self, path: str) -> None:
        """Deletes one file. It is not an error if the file does not exist."""
        ...

    def delete_tree(self, path: str) -> None:
        """Deletes a folder and everything in it. It is not an error if the folder does not exist."""
        ...


def open_own(path: str, mode: str) -> BinaryIO:
    """Opens a local file for writing, but does not follow a symbolic link. Raises OSError."""
    follow_no_link = getattr(os, "O_NOFOLLOW", 0)  # Windows does not have this flag.
    return cast(BinaryIO, open(path, mode, opener=lambda name, flags: os.open(name, flags | follow_no_link, 0o666)))


def _open_partial(path: str) -> BinaryIO:
    """A new file at a path that others can predict. Something else at the path, such as a link, is removed first."""
    with contextlib.suppress(OSError):  # Usually nothing is there. What cannot be removed cannot be opened either.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            os.remove(path)
    return open_own(path, "wb")


# One for the process, because a file may be moved and the next one created through different storage objects.
_changes = FolderChanges()


def with_literal_folders(pattern: str) -> str:
    """The glob in which those first folders of a local glob that are there by their very names have no wildcards.

    So a glob in the folder `photos [2023]` matches the files in it, and not those of a folder `photos 2`.
    """
    folder = os.path.dirname(pattern)
    if not glob.has_magic(folder):
        return pattern
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return glob.escape(folder) + pattern[len(folder) :]


class LocalStorage:
    """The filesystem of this machine."""

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        with self.open(path) as stream:
            return read_stream(stream, path, max_bytes=max_bytes)

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            pieces = []
            while num_bytes and (piece := stream.read(num_bytes)):
                pieces.append(piece)
                num_bytes -= len(piece)
            return b"".join(pieces)

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A file that appears under its name only when it is complete: it is written beside it, then renamed."""
        folder = os.path.dirname(path) or "."
        _changes.note("create", make_folders(folder))
        partial = f"{path}{PARTIAL_SUFFIX}"
        try:
            with _open_partial(partial) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if durable:
                _changes.settle()
            os.replace(partial, path)
            if durable:
                sync_folder(folder)
            else:
                _changes.note("create", [folder])
        except BaseException:
            if not keep_partial:
                self.delete_file(partial)
            raise

    def create_new(self, path: str, data: bytes) -> bool:
        folder = os.path.dirname(path) or "."
        _changes.note("create", make_folders(folder))
        mine = f"{path}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        try:
            with open(mine, "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(mine, path)
            except PermissionError:  # The filesystem has no hard links.
                if os.path.lexists(path):
                    return False
                os.replace(mine, path)
        except FileExistsError:
            return False
        finally:
            self.delete_file(mine)
        _changes.settle()
        sync_folder(folder)
        return True

    def match(self, pattern: str) -> list[str]:
        # A file whose name contains [ or * is found by its plain name.
        if os.path.isfile(pattern):
            return [pattern]
        found = glob.glob(with_literal_folders(pattern), recursive=True)
        return sorted(path for path in found if os.path.isfile(path))

    def sizes(self, pattern: str) -> dict[str, int]:
        found = {}
        for path in self.match(pattern):
            with contextlib.suppress(FileNotFoundError):  # It was deleted after it was listed.
                found[path] = os.path.getsize(path)
        return found

    def move(self, source: str, target: str) -> None:
        folder = os.path.dirname(target) or "."
        made = make_folders(folder)
        _changes.settle(before="move")
        os.replace(source, target)
        _changes.note("move", [*made, folder, os.path.dirname(source) or "."])

    def delete_file(self, path: str) -> None:
        _changes.settle(before="delete")
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
            _changes.note("delete", [os.path.dirname(path) or "."])

    def delete_tree(self, path: str) -> None:
        _changes.settle(before="delete")
        shutil.rmtree(path, ignore_errors=True)
        _changes.note("delete", [os.path.dirname(path.rstrip("/")) or "."])


def write_file(storage: Storage, path: str, data: bytes, *, durable: bool = True) -> None:
    """Writes a whole file; see `Storage.create`."""
    # Stand-ins in tests do not have to know the argument `durable`.
    with storage.create(path) if durable else storage.create(path, durable=False) as stream:
        stream.write(data)


def has_file(storage: Storage, path: str) -> bool:
    """Whether there is a file at a path, which is no glob.

    Raises:
      OSError: storage failed.
    """
    return bool(storage.match(glob.escape(path)))


def read_file(storage: Storage, path: str) -> bytes:
    """Reads a whole file. Raises FileNotFoundError if it does not exist, OSError for other faults."""
    return storage.read(path)


def is_file(storage: Storage, path: str) -> bool:
    """Whether there is a file of exactly this path, which may hold characters of globs. Raises OSError."""
    return bool(storage.match(glob.escape(path)))


def read_stream(stream: BinaryIO, path: str, *, max_bytes: int | None) -> bytes:
    """Reads a stream to its end. Raises TooLarge if it has more than `max_bytes` bytes, after one byte more."""
    if max_bytes is None:
        return stream.read()
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(path, max_bytes)
    return data
