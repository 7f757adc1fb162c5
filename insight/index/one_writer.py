"""Lets one program at a time write an index into a folder: another one waits, and then finds the index ready."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from configs.activity import doing

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"


@contextlib.contextmanager
def one_writer(folder: str) -> Iterator[None]:
    """Holds the lock of a folder, which is made. The kernel releases it when the process ends, in every case.

    On a filesystem without locks nobody waits; then the last one who writes an index wins.

    Raises:
      OSError: the folder cannot be made or written into.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, LOCK_NAME)
    descriptor = _locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        os.close(descriptor)


def _locked(path: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if fcntl is None or _lock(descriptor):
                return descriptor
            # The one before may have removed the file. Then a new file is the lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks a file, as soon as nobody else does. Returns whether its filesystem has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with doing("waiting for another program that makes this index"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return True
    return False
