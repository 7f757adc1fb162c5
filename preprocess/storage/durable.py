"""What a power cut leaves on the disks of this machine: the order in which files and folders are synced.

A kill loses nothing that was written: the kernel has it. A power cut loses whatever is not synced, and what is lost
need not be what came last: a file may be empty under its new name while the older one is gone already. So a file is
synced before it gets its name, its folder after that, and both before anything older goes.

Syncing a folder costs some milliseconds, so changes of one kind share one sync: see `FolderChanges`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from typing import Literal

# What filesystems answer that cannot sync a folder: some of networks and of user space.
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
    """Waits until the disk has the names in a folder, as far as its filesystem can. Raises OSError.

    One that is gone needs none.
    """
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in _CANNOT_SYNC:  # A folder may be written to and not be read.
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
    """Waits until the disk has a file, or all files and folders below a folder. Raises OSError."""
    if not os.path.isdir(path):
        sync_file(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(os.path.join(folder, name))
        sync_folder(folder)


class FolderChanges:
    """The folders whose names have changed since they were synced, and by what kind of change. Thread-safe.

    Changes of one kind may reach the disk in any order: shards that are moved, files that are deleted. Before a change
    of another kind, and before a file appears that others may go by, all of them are synced.
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
        """Waits until the disk has the changes; not those of the kind of the next one, if it is given.

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
    """Makes a folder and those above it; the folders in which a name has appeared. Raises OSError."""
    changed = []
    folder = path
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        changed.append(folder or ".")
    if changed:
        os.makedirs(path, exist_ok=True)
    return changed
