"""Makes sure that one run at a time writes an output: locks it, and stops all writes of a run that has lost the lock.

On a local disk the kernel keeps the lock (`file_lock`), in `gs://` and `s3://` it is a lease in the bucket (`lease`).
The other filesystems of Beam, and some servers of the S3 protocol, cannot create a file atomically. So there is no lock
for them, and a warning says so.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol, cast

from configs.errors import InputError
from preprocess.locks.file_lock import FileLock
from preprocess.locks.lease import AskService, Lease, Timing, elapsed_sec
from preprocess.locks.lock_holder import Holder, LockLost, shown
from preprocess.storage.base import Storage, read_file
from preprocess.storage.router import UriStorage
from preprocess.storage.uris import has_scheme

LOCK_NAME = ".lock"
# A worker in another process looks at the lock again if its last look is older than this.
_WITNESS_SEC = 5.0


class Fence(Protocol):
    """Says whether a run may still write. Both methods raise LockLost or another InputError if it may not."""

    def check(self) -> None:
        """A cheap check, called before each change."""
        ...

    def confirm(self) -> None:
        """A check that asks the storage of the lock, called before a change that cannot be undone."""
        ...


_held: list[Lease | FileLock] = []
_held_lock = threading.Lock()


@contextlib.contextmanager
def locked(
    folder: str,
    *,
    holder: Holder,
    flag: str,
    output: str,
    storage: Storage,
    ask_service: AskService | None = None,
    timing: Timing = Timing(),  # noqa: B008 (frozen)
) -> Iterator[Lease | FileLock | None]:
    """Locks an output against all other runs within the `with` block.

    Args:
      folder: the folder of the lock.
      holder: this process.
      flag: the option that names the output, for messages.
      output: the locked output, as the user names it.
      storage: of the folder.
      ask_service: see `Lease`.
      timing: of a lease.

    Yields:
      The lock; None if the storage has no locks.

    Raises:
      InputError: another run holds the lock, or the folder cannot be written to.
    """
    path = f"{folder}/{LOCK_NAME}"
    lock: Lease | FileLock
    if not has_scheme(path):
        lock = FileLock(path, holder=holder, flag=flag, output=output)
    else:
        try:
            versioned = storage.versioned(path) if isinstance(storage, UriStorage) else None
        except OSError as error:
            raise InputError(f"{flag}: cannot write to {output!r} ({error}).") from error
        if versioned is None:
            print(
                f"warning: no lock on {output!r}, since storage of this kind has none: see to it that no other process "
                "writes there",
                file=sys.stderr,
            )
            yield None
            return
        lock = Lease(versioned, holder=holder, flag=flag, output=output, ask_service=ask_service, timing=timing)
    with _held_lock:
        _held.append(lock)
    try:
        yield lock
    finally:
        with _held_lock:
            _held.remove(lock)
        lock.release()


def check_held() -> None:
    """Makes sure that this process still holds its locks, if it has any. Raises LockLost, InputError or OSError."""
    for lock in _held:
        lock.check()


def confirm_held() -> None:
    """Asks storage whether this process still holds its locks, if any. Raises LockLost, InputError or OSError."""
    for lock in _held:
        lock.confirm()


class Witness:
    """Looks at the lock of a run from a worker, whose process does not hold the lock itself.

    Args:
      folder: the folder of the lock.
      run_id: of the run.
      output: the locked output, as the user names it.
      storage: of the folder.
    """

    def __init__(self, folder: str, *, run_id: str, output: str, storage: Storage):
        self._path = f"{folder}/{LOCK_NAME}"
        self._run_id = run_id
        self._output = output
        self._storage = storage
        self._object = storage.versioned(self._path) if isinstance(storage, UriStorage) else None
        self._looked_sec: float | None = None

    def check(self) -> None:
        """Looks at the lock if the last look is too old. Raises LockLost or OSError."""
        if self._looked_sec is None or elapsed_sec() - self._looked_sec > _WITNESS_SEC:
            self.confirm()

    def confirm(self) -> None:
        """Looks at the lock. Raises LockLost or OSError."""
        looked_sec = elapsed_sec()
        if self._object is not None:
            found = self._object.look()
            # A lease exists as long as its run. If it is missing, another run took it over and has ended.
            self._require_ours(Holder.from_text(found.text) if found else None)
        elif not has_scheme(self._path):
            with contextlib.suppress(FileNotFoundError):  # The filesystem may have no locks.
                other = Holder.from_text(read_file(self._storage, self._path).decode(errors="replace"))
                if other is not None:
                    self._require_ours(other)
        self._looked_sec = looked_sec

    def _require_ours(self, other: Holder | None) -> None:
        if other is None or other.run_id != self._run_id:
            who = f"{other.describe()} has taken it over" if other else "its lock is gone"
            raise LockLost(
                f"output_path: this run has lost {shown(self._output)!r}: the process that started it was gone or cut "
                f"off from storage, and {who}. It stops here and changes nothing more."
            )

    def release(self) -> None:
        """Ends a lease that was handed over to this run, at the end of its work. If storage fails, the lease stays."""
        if self._object is None:
            return
        with contextlib.suppress(OSError):
            found = self._object.look()
            other = Holder.from_text(found.text) if found else None
            if found is not None and other is not None and other.run_id == self._run_id and other.handed_over:
                self._object.delete(found)


def fence_of(folder: str, *, run_id: str, output: str, storage: Storage) -> Fence:
    """The fence of a run: its lock if this process holds it, otherwise a `Witness`."""
    for lock in _held:
        if lock.output == output and lock.holder.run_id == run_id:
            return lock
    return Witness(folder, run_id=run_id, output=output, storage=storage)


class _FencedStorage:
    """A `Storage` that changes nothing after the lock is lost. Reading is always allowed."""

    def __init__(self, storage: Storage, fence: Fence):
        self._storage = storage
        self._fence = fence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextlib.contextmanager
    def create(self, path: str, **options: Any) -> Iterator[Any]:
        # At the end of the block, because the file appears then. `confirm`, because the manifest is such a file.
        with self._storage.create(path, **options) as stream:
            yield stream
            self._fence.confirm()

    def move(self, source: str, target: str) -> None:
        self._fence.check()
        self._storage.move(source, target)

    def delete_file(self, path: str) -> None:
        self._fence.check()
        self._storage.delete_file(path)

    def delete_tree(self, path: str) -> None:
        self._fence.confirm()
        self._storage.delete_tree(path)


def fenced(storage: Storage, fence: Fence | None) -> Storage:
    """The same storage, but after the lock is lost it raises LockLost instead of changing anything.

    Args:
      storage: the storage to write to.
      fence: the lock; None for no lock: then all changes are allowed.
    """
    return storage if fence is None else cast(Storage, _FencedStorage(storage, fence))
