"""The folders that a run writes into. For a folder in a bucket, TensorFlow writes into a local one that is uploaded."""

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
# The largest share of the run time for occasional uploads. A bucket accepts about one write per object and second.
_SENDING_SHARE = 0.02
_MIN_SEND_EVERY_SEC = 2.0
# The errors that a write may raise. Records and photos are read meanwhile, and reading raises none of these.
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
# If an error names a file below the folder, then writing that file has failed.
_OF_A_FILE = _OF_WRITING | {errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


class WorkingFolder:
    """A folder on a disk of this machine. Files are written directly to their final place.

    Attributes:
      path: the folder that the user named.
      local: the local folder into which its files are written.
    """

    def __init__(self, path: str, *, flag: str):
        """Creates nothing yet; `flag` is the option that named the folder, for the messages."""
        self.path = path.rstrip("/") or "/"
        self.local = self.path
        self._flag = flag
        self._parents_synced = False

    def require_writable(self) -> None:
        """Creates the folder. Raises InputError if it is not writable."""
        try:
            os.makedirs(self.local, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.local):
                pass
        except OSError as error:
            raise self._fault(error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A `with` block for code that writes into the folder: disk errors, also TensorFlow's, become an InputError."""
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
        """Whether it holds a file or folder of that name. Raises InputError if that cannot be found out."""
        return os.path.exists(os.path.join(self.local, name))

    def fetch(self, name: str) -> None:
        """Copies a sub-folder of an earlier run to `local`. Raises InputError."""

    def discard(self, name: str) -> None:
        """Removes a sub-folder, if there is one. Raises InputError if it cannot be removed."""
        if os.path.isdir(os.path.join(self.local, name)):
            shutil.rmtree(os.path.join(self.local, name))

    def sync(self, *names: str) -> None:
        """Syncs files and sub-folders to the disk, so that a power cut undoes no write, rename or deletion.

        Args:
          names: the names of files and sub-folders; a sub-folder includes all that is in it.

        Raises:
          InputError: the disk failed.
        """
        try:
            for name in names:
                sync_tree(os.path.join(self.local, name))
            sync_folder(self.local)
            if not self._parents_synced:  # The folders above this one may be new too.
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
        """Uploads the new and changed files of `local` to the folder that the user named.

        Args:
          rank: gives the rank of a file from its path within the folder. Files of a higher rank appear only after all
            files of lower ranks.
          withdraw: files that are deleted first, in this order.
          exactly: sub-folders in which, at the end, all files are deleted that `local` does not hold.

        Raises:
          InputError: the folder is not writable, or another run has taken it over.
        """

    def send_now_and_then(self) -> None:
        """Does the same as `send` from time to time, and else nothing, to keep uploads cheap. Raises InputError."""

    def _fault(self, error: OSError) -> InputError:
        return InputError(f"--{self._flag}: cannot write to {self.path}: {cause_of(error)}")


def _number_of(error: Exception) -> int | None:
    """The error number of a TensorFlow exception, found from its text: `PATH; No space left on device`."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(error, tf.errors.OpError):
        return None
    return next((number for number in sorted(_OF_A_FILE) if f"; {os.strerror(number)}" in str(error)), None)


class _BucketFolder(WorkingFolder):
    """A folder in a bucket. Its files also stay on a local disk until this object is deleted or the program ends."""

    def __init__(self, path: str, *, flag: str):
        super().__init__(path, flag=flag)
        self._scratch = Scratch()
        self.local = self._scratch.path
        # The size in bytes and the modification time in ns of each uploaded file.
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
        pass  # An uploaded object is durable, and the local copies are temporary.

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
    """Makes the object for a folder to write into, local or gs://.

    Args:
      path: the path of the folder.
      flag: the option that named the folder, for the messages.
    """
    return (_BucketFolder if is_in_bucket(path) else WorkingFolder)(path, flag=flag)
