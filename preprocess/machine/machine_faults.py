"""Which failures are the machine's and not the image's, and how long they are tried again.

A file that is not there or holds no image fails again whenever it is tried: that is the row's outcome. No free file
descriptor, no memory, a disk or a service that does not answer, a process that somebody killed: that says nothing of
the image, so the row is tried again, and where that does not help the job stops. It never becomes the outcome of a
row, since a set with such a row would be taken for complete.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator

from preprocess.storage.retry import RetriesExhausted, RetryPolicy

# How long, beyond what each try takes by itself. Two tries at least, however long the first took.
TRY_AGAIN = RetryPolicy(limit_sec=30.0, first_wait_sec=1.0, max_wait_sec=8.0)
_MIN_TRIES = 2

# What these say is about the file that was named; every other number is about what it lies on, or about this process.
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


class MachineFault(OSError):  # noqa: N818 (what it says is what happened)
    """The machine, its disks or its services failed; what was to be done says nothing of the image. One line."""


def is_machine_fault(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, is the machine's."""
    return any(_is_one(one) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
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
    # Exactly: what a decoder says of itself may hold the same words.
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def in_one_line(error: BaseException) -> str:
    """What a fault says, in one line that is never empty."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


@dataclasses.dataclass
class Patience:
    """How often one thing was tried that the machine failed at, and whether it is to be tried again.

    Attributes:
      policy: of the waits; `limit_sec` counts from the first fault.
      tries: that failed so far.
    """

    policy: RetryPolicy = TRY_AGAIN
    tries: int = 0
    _first_fault: float = 0.0

    def next_wait_sec(self) -> float | None:
        """To be called for each fault: how long to wait before the next try, in seconds; None to give up."""
        now = self.policy.clock()
        self.tries += 1
        if self.tries == 1:
            self._first_fault = now
        wait_sec = self.policy.wait_sec(self.tries)
        if self.tries >= _MIN_TRIES and now + wait_sec - self._first_fault >= self.policy.limit_sec:
            return None
        return wait_sec
