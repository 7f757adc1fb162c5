"""Files by URI: what the pipeline needs of a filesystem, and the local one.

Everything that touches files takes a `Storage`, so that one code path serves local disks and whatever
Beam opens (`preprocess.beam.beam_storage`).
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


class TooLarge(OSError):  # noqa: N818 (what it says is what is wrong)
    """A file has more bytes than its reader takes."""

    def __init__(self, path: str, max_bytes: int):
        super().__init__(f"{path} has more than {max_bytes} bytes")


class Storage(Protocol):
    """The operations on files that reading lists and finishing a set of records need.

    Paths are local paths or URIs with a scheme. Faults raise OSError; a missing file, FileNotFoundError.

    A power cut finds the operations done in their order: whatever is there of one, all of those before it is there,
    except that several moves, several deletions, and files that are not `durable` may come in any order.
    """

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading."""
        ...

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Reads a whole file. Raises TooLarge if it has more than `max_bytes` bytes, without reading them all."""
        ...

    def create(
        self, path: str, *, keep_partial: bool = False, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """Opens a new file for writing, with the folders above it; complete only once closed.

        With `keep_partial`, what was written before a fault stays under `path` + `PARTIAL_SUFFIX`, where storage
        can do that. With `durable`, no power cut takes the file away once it is closed; without, one may, until the
        next change that is durable; it is whole or not there even so.
        """
        ...

    def create_new(self, path: str, data: bytes) -> bool:
        """Writes a whole file unless there is one; False if there is. Of several at once, one gets True."""
        ...

    def match(self, pattern: str) -> list[str]:
        """The files that a path or glob names, sorted; empty if there is none."""
        ...

    def sizes(self, pattern: str) -> dict[str, int]:
        """The files that a path or glob names, as `match` gives them, each with its size in bytes."""
        ...

    def move(self, source: str, target: str) -> None:
        """Moves one file, replacing what is at the target."""
        ...

    def delete_file(self, path: str) -> None:
        """Deletes one file; it is no fault if there is none."""
        ...

    def delete_tree(self, path: str) -> None:
        """Deletes a folder and all in it; it is no fault if there is none."""
        ...


def open_own(path: str, mode: str) -> BinaryIO:
    """Opens a local file to write to it, and never what a link of its name leads to. Raises OSError."""
    follow_no_link = getattr(os, "O_NOFOLLOW", 0)  # Windows has none.
    return cast(BinaryIO, open(path, mode, opener=lambda name, flags: os.open(name, flags | follow_no_link, 0o666)))


def _open_partial(path: str) -> BinaryIO:
    """A new file at a path that others can foresee: what is there and is no file, such as a link, is removed."""
    with contextlib.suppress(OSError):  # As a rule, nothing is there; what cannot be removed cannot be opened either.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            os.remove(path)
    return open_own(path, "wb")


# Of this process: whoever creates a file may have got its storage elsewhere than who moved the one before.
_changes = FolderChanges()


class LocalStorage:
    """The filesystem of this machine."""

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        with self.open(path) as stream:
            return read_stream(stream, path, max_bytes=max_bytes)

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A file that appears under its name only when it is whole: written beside it, then renamed."""
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
            except PermissionError:  # A filesystem without hard links.
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
        # A file whose name happens to hold [ or * is still found by its plain name.
        if os.path.isfile(pattern):
            return [pattern]
        return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))

    def sizes(self, pattern: str) -> dict[str, int]:
        found = {}
        for path in self.match(pattern):
            with contextlib.suppress(FileNotFoundError):  # It went after it was listed.
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
    # Storage that knows no difference is not asked for one.
    with storage.create(path) if durable else storage.create(path, durable=False) as stream:
        stream.write(data)


def read_file(storage: Storage, path: str) -> bytes:
    """Reads a whole file. Raises FileNotFoundError if there is none, OSError on other faults."""
    return storage.read(path)


def read_stream(stream: BinaryIO, path: str, *, max_bytes: int | None) -> bytes:
    """Reads a stream to its end. Raises TooLarge beyond `max_bytes` bytes, and reads no more than one of them."""
    if max_bytes is None:
        return stream.read()
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(path, max_bytes)
    return data
