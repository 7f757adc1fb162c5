"""Temporary folders that are cleaned up even after a kill: each new one deletes the folders of dead processes.

Each folder has a file that its process keeps locked while it lives. The kernel releases the lock when the process ends,
also after a kill. So a folder whose lock is free belongs to no process any more. Only folders of this user are deleted.
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
    """A temporary folder with mode 0700. It is deleted by `cleanup`, with this object, or after its process has ended.

    Args:
      parent: the folder in which it is made, with a name that begins with `PREFIX`; None for the system's temporary
        folder.

    Attributes:
      path: an empty folder for the caller.

    Raises:
      OSError: the folder cannot be made.
    """

    def __init__(self, parent: str | None = None):
        parent = parent or tempfile.gettempdir()
        _delete_abandoned(parent)
        lock = None
        while lock is None:
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            # None if another process thought that the folder was abandoned before it was locked, and deletes it.
            lock = _locked(os.path.join(folder, _LOCK_NAME), create=True)
        self._cleanup = weakref.finalize(self, _delete, folder, lock, os.getpid())
        self.path = os.path.join(folder, _CONTENT_NAME)
        os.mkdir(self.path, 0o700)

    def cleanup(self) -> None:
        """Deletes the folder. It is not an error if some of its content cannot be deleted."""
        self._cleanup()


def _delete(folder: str, lock: int, process: int) -> None:
    if os.getpid() == process:  # A forked child must not delete the folder.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def scratch_folder(parent: str | None = None) -> Iterator[str]:
    """The path of a `Scratch` folder, which exists within the `with` block."""
    scratch = Scratch(parent)
    try:
        yield scratch.path
    finally:
        scratch.cleanup()


def _locked(path: str, *, create: bool) -> int | None:
    """A descriptor that holds the lock of a file; None if another process holds it, or the file does not exist."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous holder of the lock may have deleted the file together with its folder.
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    except ImportError:  # A system without such locks: there, a folder is deleted only by the process that made it.
        if create:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _delete_abandoned(parent: str) -> None:
    """Deletes the temporary folders that dead processes of this user left in a folder."""
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
