"""Protects local files against power cuts, by the order in which files and folders are synced to the disk.

A killed process loses no data that it has written, because the kernel has it. A power cut loses all data that is not
synced, and not only the latest: a file may be empty under its new name while the older file is already deleted. So a
file is synced before it gets its name, then its folder is synced, and only then older files are deleted.

Syncing a folder takes some milliseconds, so changes of one kind share one sync: see `FolderChanges`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from typing import Literal

# The errors of filesystems that cannot sync a folder: some network filesystems, some in user space.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF, errno.ENOSYS})

Change = Literal["create", "move", "delete"]


def sync_file(path: str) -> None:
    """Waits until the disk has the content of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Waits until the names in a folder are on the disk, if its filesystem supports that. Raises OSError.

    A folder that does not exist any more needs no sync.
    """
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in _CANNOT_SYNC:  # Among other reasons, a folder may be writable but not readable.
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: str) -> None:
    """Waits until a file, or all files and folders below a folder, are on the disk. Raises OSError."""
    if not os.path.isdir(path):
        sync_file(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(os.path.join(folder, name))
        sync_folder(folder)


class FolderChanges:
    """The folders that have changed since they were synced, and the kind of these changes. Thread-safe.

    Changes of one kind may reach the disk in any order, for example moves of several shards. Before a change of another
    kind, and before a durable file appears, all changed folders are synced.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kind: Change | None = None
        self._folders: set[str] = set()

    def note(self, kind: Change, folders: Iterable[str]) -> None:
        """Remembers folders that have just been changed."""
        with self._lock:
            self._kind = kind
            self._folders.update(folders)

    def settle(self, *, before: Change | None = None) -> None:
        """Waits until the changes are on the disk. It does not wait if the next change, `before`, is of the same kind.

        Raises:
          OSError: the disk failed.
        """
        with self._lock:
            if before is not None and self._kind == before:
                return
            for folder in sorted(self._folders):
                sync_folder(folder)
            self._folders.clear()


def make_folders(path: str) -> list[str]:
    """Makes a folder and the folders above it. Returns the folders that have a new entry. Raises OSError."""
    changed = []
    folder = path
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        changed.append(folder or ".")
    if changed:
        os.makedirs(path, exist_ok=True)
    return changed
