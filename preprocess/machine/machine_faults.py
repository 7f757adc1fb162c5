"""Tells faults of the machine from failures of an image, and decides how long an image is tried again.

A missing file, or a file that is no image, fails at every attempt: this failure is the outcome of the row. Other faults
say nothing about the image: no free file descriptor, no memory, a disk or a service that does not answer, a killed
process. After such a fault the row is tried again, and if that does not help, the job stops. Such a fault never becomes
the outcome of a row, because the set would then look complete although a good image is missing.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator

from preprocess.storage.retry import RetriesExhausted, RetryPolicy

# How long a row is tried again, in addition to the time of the attempts. There are always at least two attempts.
TRY_AGAIN = RetryPolicy(limit_sec=30.0, first_wait_sec=1.0, max_wait_sec=8.0)
_MIN_TRIES = 2

# Error numbers about the named file. All other numbers are about the disk or about this process.
_ABOUT_THE_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENXIO,
        errno.EOPNOTSUPP,
        errno.EFBIG,
        errno.EOVERFLOW,
    }
)


class MachineFault(OSError):  # noqa: N818 (the name says what happened)
    """The machine, its disks or its services failed, which says nothing about the image. The message is one line."""


def is_machine_fault(error: BaseException) -> bool:
    """Whether an exception, or one of its causes, is a fault of the machine."""
    return any(_is_one(one) for one in with_causes(error))


def with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_one(error: BaseException) -> bool:
    if isinstance(error, (MachineFault, RetriesExhausted, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _ABOUT_THE_FILE
    # The text must be equal, because the message of a decoder may contain the same words.
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def in_one_line(error: BaseException) -> str:
    """The message of a fault in one line, which is never empty."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


@dataclasses.dataclass
class Patience:
    """Counts the attempts at one image that failed because of the machine, and decides whether to try again.

    Attributes:
      policy: the waits between attempts; `limit_sec` counts from the first fault.
      tries: the number of failed attempts so far.
    """

    policy: RetryPolicy = TRY_AGAIN
    tries: int = 0
    _first_fault: float = 0.0

    def next_wait_sec(self) -> float | None:
        """The seconds to wait before the next attempt; None to give up. It must be called once for each fault."""
        now = self.policy.clock()
        self.tries += 1
        if self.tries == 1:
            self._first_fault = now
        wait_sec = self.policy.wait_sec(self.tries)
        if self.tries >= _MIN_TRIES and now + wait_sec - self._first_fault >= self.policy.limit_sec:
            return None
        return wait_sec
