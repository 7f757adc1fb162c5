"""Temporary folders that nobody has to clean up after a kill: who makes one deletes those that dead processes left.

Each has a file that its process keeps locked for as long as it lives. The kernel gives the lock up when the process
ends, however it ends, so a folder whose lock can be had is nobody's. Only folders of this user are looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator

PREFIX = "hugs-"
_LOCK_NAME = "in-use"
_CONTENT_NAME = "content"


class Scratch:
    """A folder of its own, mode 0700, deleted by `cleanup`, with this object, or once its process is gone.

    Args:
      parent: the folder to make it in, under a name that begins with `PREFIX`; None for the system's folder of
        temporary files.

    Attributes:
      path: an empty folder, the caller's own.

    Raises:
      OSError: it cannot be made.
    """

    def __init__(self, parent: str | None = None):
        parent = parent or tempfile.gettempdir()
        _delete_abandoned(parent)
        lock = None
        while lock is None:
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            # None if another process took it for abandoned before it was locked, and deletes it.
            lock = _locked(os.path.join(folder, _LOCK_NAME), create=True)
        self._cleanup = weakref.finalize(self, _delete, folder, lock, os.getpid())
        self.path = os.path.join(folder, _CONTENT_NAME)
        os.mkdir(self.path, 0o700)

    def cleanup(self) -> None:
        """Deletes the folder; it is no fault if something in it cannot be deleted."""
        self._cleanup()


def _delete(folder: str, lock: int, process: int) -> None:
    if os.getpid() == process:  # And not one that was forked from it.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def scratch_folder(parent: str | None = None) -> Iterator[str]:
    """The path of a `Scratch` for as long as the `with` block."""
    scratch = Scratch(parent)
    try:
        yield scratch.path
    finally:
        scratch.cleanup()


def _locked(path: str, *, create: bool) -> int | None:
    """A descriptor that holds the lock of a file; None if another process has it, or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Deleted by who had the lock before, together with its folder?
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    except ImportError:  # A system without such locks: nothing is deleted there but by who made it.
        if create:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _delete_abandoned(parent: str) -> None:
    """Deletes what dead processes of this user left in a folder."""
    with contextlib.suppress(OSError, AttributeError):
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _delete_if_abandoned(entry.path)


def _delete_if_abandoned(path: str) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = _locked(os.path.join(path, _LOCK_NAME), create=False)
    if lock is not None:
        try:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
