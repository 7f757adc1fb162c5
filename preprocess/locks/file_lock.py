"""A lock on a local disk: a file that the kernel locks. The kernel releases it when the process ends, in every case."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import BinaryIO

from configs.errors import InputError
from preprocess.locks.lock_holder import Holder, LockLost
from preprocess.storage.base import open_own

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

# The errors of filesystems without locks; some filesystems in user space answer EINVAL.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_MAX_BYTES = 65536


class FileLock:
    """A locked file. Releasing the lock deletes the file. If the process is killed, the file stays, but unlocked.

    Args:
      path: of the file.
      holder: this process.
      flag: the option that names the output, for messages.
      output: the locked output, as the user names it.

    Raises:
      InputError: another process has the lock, or the file cannot be written.
    """

    def __init__(self, path: str, *, holder: Holder, flag: str, output: str):
        self.output = output
        self.holder = holder
        self._path = path
        self._flag = flag
        self._stream: BinaryIO | None = None
        self._has_locks = fcntl is not None
        self._acquire()

    def _acquire(self) -> None:
        while self._has_locks and self._stream is None:
            try:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                stream = open_own(self._path, "a+b")
            except OSError as error:
                raise InputError(
                    f"{self._flag}: cannot write to {self.output!r} ({error.strerror or error}: {self._path})."
                ) from error
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have released the lock and removed the file. Then a new file is the lock.
                if self._is_at_path(stream):
                    self._stream = stream
                    self._write_holder()
            except BlockingIOError as error:
                raise self._refusal(stream) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise InputError(
                        f"{self._flag}: cannot lock {self.output!r} ({error.strerror}: {self._path})."
                    ) from error
                self._has_locks = False
                print(
                    f"warning: no lock on {self.output!r}, since its filesystem has none ({error.strerror}): see to it "
                    "that no other process writes there",
                    file=sys.stderr,
                )
            finally:
                if self._stream is not stream:
                    stream.close()

    def _write_holder(self) -> None:
        assert self._stream is not None
        # This text is only for messages of other processes, so a full disk does not matter here.
        with contextlib.suppress(OSError):
            self._stream.truncate(0)
            self._stream.write(self.holder.to_text().encode())
            self._stream.flush()

    def _refusal(self, stream: BinaryIO) -> InputError:
        stream.seek(0)
        other = Holder.from_text(stream.read(_MAX_BYTES).decode(errors="replace"))
        who = f" ({other.describe()})" if other else ""
        return InputError(
            f"{self._flag}: another process is writing {self.output!r} at this moment{who}. Wait for it, or stop it "
            "first."
        )

    def _is_at_path(self, stream: BinaryIO) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(stream.fileno()))

    def check(self) -> None:
        """Makes sure that the file still exists. Otherwise another process may have had the lock meanwhile.

        Raises:
          LockLost: the file was removed, usually together with its folder.
        """
        if self._stream is not None and not self._is_at_path(self._stream):
            raise LockLost(
                f"{self._flag}: this run has lost {self.output!r}: its lock {self._path} was removed while it ran, and "
                "another process may have written there since. It stops here and changes nothing more. Give the same "
                "command again once nothing else writes there."
            )

    confirm = check

    def release(self) -> None:
        """Removes the file, then unlocks it. A process that has opened it sees that it is not the lock any more."""
        if self._stream is None:
            return
        if self._is_at_path(self._stream):
            with contextlib.suppress(OSError):
                os.remove(self._path)
        self._stream.close()
        self._stream = None
