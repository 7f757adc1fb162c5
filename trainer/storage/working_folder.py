"""Folders that a run writes into; those in a bucket by way of a local one, which TensorFlow can write into."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import posixpath
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

from configs.errors import InputError
from preprocess.locks.output_lock import check_held
from preprocess.storage.durable import sync_folder, sync_tree
from preprocess.storage.scratch import Scratch
from trainer.storage.files import cause_of, fetch_folder, is_in_bucket, names_below, storage

_THREADS = 8
_COPY_BYTES = 1 << 20
_PROBE_NAME = ".write-test"
# Of the time, what sending now and then may add. An object may be written about once a second, no oftener.
_SENDING_SHARE = 0.02
_MIN_SEND_EVERY_SEC = 2.0
# What a write may meet. No reading of records or photos, which goes on meanwhile, ends in one of these.
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
# With the name of a file below the folder, whatever befell it did so while it was written.
_OF_A_FILE = _OF_WRITING | {errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


class WorkingFolder:
    """A folder on a disk of this machine: what is written there is where it belongs.

    Attributes:
      path: the folder as the user knows it.
      local: where its files are written.
    """

    def __init__(self, path: str, *, flag: str):
        """Makes nothing yet; `flag` is the option that named it, for the messages."""
        self.path = path.rstrip("/") or "/"
        self.local = self.path
        self._flag = flag
        self._parents_synced = False

    def require_writable(self) -> None:
        """Makes the folder. Raises InputError if nothing can be written into it."""
        try:
            os.makedirs(self.local, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.local):
                pass
        except OSError as error:
            raise self._fault(error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What is written into it within the block; a fault of the disk becomes an InputError, TensorFlow's too."""
        try:
            yield
        except OSError as error:
            below = str(error.filename or "").startswith(self.local)
            if error.errno in (_OF_A_FILE if below else _OF_WRITING):
                raise self._fault(error) from error
            raise
        except Exception as error:
            number = _number_of(error)
            if number is None or (number not in _OF_WRITING and self.local not in str(error)):
                raise
            raise self._fault(OSError(number, os.strerror(number))) from error

    def exists(self, name: str) -> bool:
        """Whether it holds a file or folder of that name. Raises InputError if that cannot be told."""
        return os.path.exists(os.path.join(self.local, name))

    def fetch(self, name: str) -> None:
        """Brings a sub-folder to `local`, as it was left by an earlier run. Raises InputError."""

    def discard(self, name: str) -> None:
        """Removes a sub-folder, if there is one. Raises InputError if it cannot be removed."""
        if os.path.isdir(os.path.join(self.local, name)):
            shutil.rmtree(os.path.join(self.local, name))

    def sync(self, *names: str) -> None:
        """Waits until no power cut takes away files and sub-folders, nor what was renamed or removed before.

        Args:
          names: of files and sub-folders, with all that is in them.

        Raises:
          InputError: the disk failed.
        """
        try:
            for name in names:
                sync_tree(os.path.join(self.local, name))
            sync_folder(self.local)
            if not self._parents_synced:  # Whoever made the folder may have made those above it.
                for folder in pathlib.Path(os.path.abspath(self.local)).parents:
                    sync_folder(str(folder))
                self._parents_synced = True
        except OSError as error:
            raise self._fault(error) from error

    def send(
        self,
        *,
        rank: Callable[[str], int] = lambda name: 0,
        withdraw: Collection[str] = (),
        exactly: Collection[str] = (),
    ) -> None:
        """Brings what is new or other than before in `local` to where it belongs.

        Args:
          rank: of a file, by its path within the folder: those of a higher rank are seen later than all of a lower one.
          withdraw: files that disappear before anything else is done, in this order.
          exactly: sub-folders that lose, at the end, what `local` does not hold.

        Raises:
          InputError: it cannot be written to, or another run has taken it over.
        """

    def send_now_and_then(self) -> None:
        """Like `send`, or nothing, so that sending takes little of the time. Raises InputError."""

    def _fault(self, error: OSError) -> InputError:
        return InputError(f"--{self._flag}: cannot write to {self.path}: {cause_of(error)}")


def _number_of(error: Exception) -> int | None:
    """The error number behind an exception of TensorFlow, which keeps its text: `PATH; No space left on device`."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(error, tf.errors.OpError):
        return None
    return next((number for number in sorted(_OF_A_FILE) if f"; {os.strerror(number)}" in str(error)), None)


class _BucketFolder(WorkingFolder):
    """A folder in a bucket. What is written lies on a local disk until this object goes or the program ends."""

    def __init__(self, path: str, *, flag: str):
        super().__init__(path, flag=flag)
        self._scratch = Scratch()
        self.local = self._scratch.path
        # Size in bytes and time of change, in ns, of what was sent.
        self._sent: dict[str, tuple[int, int]] = {}
        self._next_send_sec = 0.0

    def _uri(self, name: str) -> str:
        return posixpath.join(self.path, name)

    def require_writable(self) -> None:
        try:
            with storage().create(self._uri(_PROBE_NAME)) as stream:
                stream.write(b"")
            self._delete_one(_PROBE_NAME)
        except OSError as error:
            raise self._fault(error) from error

    def exists(self, name: str) -> bool:
        try:
            return bool(storage().match(self._uri(name)) or names_below(self._uri(name)))
        except OSError as error:
            raise self._fault(error) from error

    def fetch(self, name: str) -> None:
        try:
            fetch_folder(self._uri(name), os.path.join(self.local, name))
        except OSError as error:
            raise InputError(f"--{self._flag}: cannot read {self._uri(name)}: {cause_of(error)}") from error

    def sync(self, *names: str) -> None:
        pass  # An object is durable once it is sent; what lies here goes with the process.

    def discard(self, name: str) -> None:
        super().discard(name)
        try:
            check_held()
            storage().delete_tree(self._uri(name))
        except OSError as error:
            raise self._fault(error) from error

    def send(
        self,
        *,
        rank: Callable[[str], int] = lambda name: 0,
        withdraw: Collection[str] = (),
        exactly: Collection[str] = (),
    ) -> None:
        here = self._files()
        new = [name for name, version in here.items() if self._sent.get(name) != version]
        try:
            for name in withdraw:
                self._delete_one(name)
            for level in sorted({rank(name) for name in new}):
                self._in_threads(self._send_one, [name for name in new if rank(name) == level])
            for folder in exactly:
                there = [posixpath.join(folder, name) for name in names_below(self._uri(folder))]
                self._in_threads(self._delete_one, [name for name in there if name not in here])
        except OSError as error:
            raise self._fault(error) from error
        self._sent = here

    def send_now_and_then(self) -> None:
        started_sec = time.monotonic()
        if started_sec < self._next_send_sec:
            return
        self.send()
        ended_sec = time.monotonic()
        self._next_send_sec = ended_sec + max(_MIN_SEND_EVERY_SEC, (ended_sec - started_sec) / _SENDING_SHARE)

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, _, names in os.walk(self.local):
            for name in names:
                path = os.path.join(folder, name)
                status = os.stat(path)
                found[os.path.relpath(path, self.local)] = (status.st_size, status.st_mtime_ns)
        return found

    def _send_one(self, name: str) -> None:
        check_held()
        with open(os.path.join(self.local, name), "rb") as source, storage().create(self._uri(name)) as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)

    def _delete_one(self, name: str) -> None:
        check_held()
        storage().delete_file(self._uri(name))

    @staticmethod
    def _in_threads(work: Callable[[str], None], names: Collection[str]) -> None:
        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(work, names):
                pass  # Iterating raises what a thread raised.


def working_folder(path: str, *, flag: str) -> WorkingFolder:
    """A folder to write into, local or gs://.

    Args:
      path: of the folder.
      flag: the option that named it, for the messages.
    """
    return (_BucketFolder if is_in_bucket(path) else WorkingFolder)(path, flag=flag)
