"""One run at a time writes an output: takes the lock of it, and holds back what a run that lost it would still write.

On a local disk the kernel keeps the lock (`file_lock`), in `gs://` a lease in the bucket does (`lease`). What Beam
opens beside those has no way to write a file only if there is none, so there is no lock, and that is said.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol, cast

from preprocess.locks.file_lock import FileLock
from preprocess.locks.lease import AskService, Lease, Timing, elapsed_sec
from preprocess.locks.lock_holder import Holder, LockLost, shown
from preprocess.storage.base import Storage, read_file
from preprocess.storage.router import UriStorage
from preprocess.storage.uris import has_scheme

LOCK_NAME = ".lock"
# Of a worker in another process than the lock: how old what it knows may be.
_WITNESS_SEC = 5.0


class Fence(Protocol):
    """What says whether a run may still write. Both raise LockLost or another InputError if not."""

    def check(self) -> None:
        """Cheap: to be called before each change."""
        ...

    def confirm(self) -> None:
        """Asks whoever keeps the lock: to be called before what cannot be taken back."""
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
    """Keeps every other run from writing an output, for as long as the `with` block takes.

    Args:
      folder: that the lock lies in.
      holder: this process.
      flag: the option that named the output, for the messages.
      output: what is locked, as the user knows it.
      storage: of the folder.
      ask_service: see `Lease`.
      timing: of a lease.

    Yields:
      The lock; None where storage has none.

    Raises:
      InputError: somebody else holds it, or the folder cannot be written to.
    """
    path = f"{folder}/{LOCK_NAME}"
    lock: Lease | FileLock
    if not has_scheme(path):
        lock = FileLock(path, holder=holder, flag=flag, output=output)
    else:
        versioned = storage.versioned(path) if isinstance(storage, UriStorage) else None
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
    """Makes sure that this process still has the locks that it took, if any. Raises LockLost, InputError or OSError."""
    for lock in _held:
        lock.check()


def confirm_held() -> None:
    """Asks whoever keeps the locks that this process took, if any. Raises LockLost, InputError or OSError."""
    for lock in _held:
        lock.confirm()


class Witness:
    """Looks at a lock that another process holds for the run that this one works for.

    Args:
      folder: that the lock lies in.
      run_id: of the run.
      output: what is locked, as the user knows it.
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
        """Looks, if that was not done of late. Raises LockLost or OSError."""
        if self._looked_sec is None or elapsed_sec() - self._looked_sec > _WITNESS_SEC:
            self.confirm()

    def confirm(self) -> None:
        """Looks. Raises LockLost or OSError."""
        looked_sec = elapsed_sec()
        if self._object is not None:
            found = self._object.look()
            # A lease is there for as long as its run is: if it is gone, another run was here and has ended.
            self._require_ours(Holder.from_text(found.text) if found else None)
        elif not has_scheme(self._path):
            with contextlib.suppress(FileNotFoundError):  # Of a filesystem without locks.
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
        """Ends a lease that was handed over to this run, whose work is done. If storage fails, it stays."""
        if self._object is None:
            return
        with contextlib.suppress(OSError):
            found = self._object.look()
            other = Holder.from_text(found.text) if found else None
            if found is not None and other is not None and other.run_id == self._run_id and other.handed_over:
                self._object.delete(found)


def fence_of(folder: str, *, run_id: str, output: str, storage: Storage) -> Fence:
    """What says whether a run may still write its output: its lock in this process, or how it looks from outside."""
    for lock in _held:
        if lock.output == output and lock.holder.run_id == run_id:
            return lock
    return Witness(folder, run_id=run_id, output=output, storage=storage)


class _FencedStorage:
    """A `Storage` that changes nothing once the lock is lost; reading stays free."""

    def __init__(self, storage: Storage, fence: Fence):
        self._storage = storage
        self._fence = fence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextlib.contextmanager
    def create(self, path: str, **options: Any) -> Iterator[Any]:
        # Before the end of the block, since a file appears at its end. Few files are made, and the manifest is one.
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
    """The same storage, which raises LockLost instead of changing anything once the lock is lost.

    Args:
      storage: to write to.
      fence: the lock; None for none, which holds back nothing.
    """
    return storage if fence is None else cast(Storage, _FencedStorage(storage, fence))
