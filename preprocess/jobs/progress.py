"""The progress of a job, for a program that runs it in its own process.

Workers in other processes report through Beam's counters only (`preprocess.beam.counters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[int], None]

_listener: Listener | None = None


def notify(rows: int) -> None:
    """Tells the listener that `rows` more rows have reached their outcome."""
    if _listener is not None:
        _listener(rows)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this context, calls `listener` with the number of rows that reach their outcome in this process."""
    global _listener
    previous, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = previous
