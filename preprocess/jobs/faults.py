"""What stopped a job, for a program that runs it in its own process.

Runners wrap what a stage raises in errors of their own, whose text is a traceback. The program that started the job
asks here what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_first: BaseException | None = None


@contextmanager
def noted() -> Iterator[None]:
    """Remembers what the block raises, if it is the first of the job, and passes it on."""
    global _first
    try:
        yield
    except Exception as error:
        if _first is None:
            _first = error
        raise


def first_fault() -> BaseException | None:
    """The first that a stage in this process raised since `forget`."""
    return _first


def forget() -> None:
    """Begins a new job."""
    global _first
    _first = None
