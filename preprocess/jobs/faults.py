"""Remembers the exception that stopped a job, for a program that runs the job in its own process.

Runners wrap the exception of a stage in an error of their own, whose text is a traceback. The program that started the
job gets the original exception here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_first: BaseException | None = None


@contextmanager
def noted() -> Iterator[None]:
    """Remembers the exception that the body raises, if it is the first of the job, and raises it again."""
    global _first
    try:
        yield
    except Exception as error:
        if _first is None:
            _first = error
        raise


def first_fault() -> BaseException | None:
    """The first exception that a stage in this process raised since the last `forget`."""
    return _first


def forget() -> None:
    """Forgets the exception, because a new job begins."""
    global _first
    _first = None
