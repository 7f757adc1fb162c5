"""Deadlines for work in other threads and processes. They count only time in which this process could run.

If the process is stopped (SIGSTOP, a debugger, a frozen container), or if the machine sleeps or is overloaded, no work
can end in time, and no work must fail for that. The watching thread wakes up at least once a second. If it wakes up
later than it should, it adds the lost time to all deadlines. It uses the monotonic clock, which nobody can set.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

from preprocess.machine.machine_faults import MachineFault

_LOGGER = logging.getLogger(__name__)

_TICK_SEC = 1.0
# On a busy machine, waking up takes some time; only a longer delay counts as lost time.
_LATE_SEC = 0.1
_NEVER = float("inf")


class DeadlineWatch:
    """Watches deadlines, and calls a function for each deadline that has passed. Any thread may call its methods.

    `start` and `end` take about a microsecond, and they wake the watching thread only for deadlines under a second.

    Args:
      name: of its thread, for stack dumps.
      clock: a monotonic clock in seconds.

    Raises:
      MachineFault: no thread can be started.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        # Guards all fields below. It is notified when a new deadline is earlier than the next look.
        self._changed = threading.Condition()
        self._tokens = itertools.count()
        # By token: the start time, the deadline, and the function to call after the deadline.
        self._under_way: dict[int, tuple[float, float, Callable[[], None]]] = {}
        self._next_look = _NEVER
        self._looked = clock()
        self._idle = False
        if not start_thread(self._watch, name):
            raise MachineFault("no thread can be started (a limit on processes?)")

    def start(self, seconds: float, late: Callable[[], None]) -> int:
        """Starts a deadline.

        Args:
          seconds: the time until the deadline.
          late: the watching thread calls it after the deadline; it must return at once.

        Returns:
          A token for `end`.
        """
        started = self._clock()
        due = started + seconds
        with self._changed:
            token = next(self._tokens)
            self._under_way[token] = (started, due, late)
            if due < self._next_look:
                self._changed.notify()
        return token

    def end(self, token: int) -> bool:
        """Ends a deadline. Returns False if `late` was called or is about to be called, or if it was ended before."""
        with self._changed:
            return self._under_way.pop(token, None) is not None

    def _watch(self) -> None:
        while True:
            for late in self._wait_for_late():
                try:
                    late()
                except Exception:  # This thread must go on, because no other thread watches the deadlines.
                    _LOGGER.exception("A deadline was noticed, and what was to be done then failed.")

    def _wait_for_late(self) -> list[Callable[[], None]]:
        with self._changed:
            self._look(expected=self._looked)
            if not self._under_way and self._idle:
                self._next_look = _NEVER
                self._changed.wait()
                self._looked = self._clock()
            # It waits one more round before it sleeps. Otherwise each of many short tasks would wake this thread.
            self._idle = not self._under_way
            first = min((due for _, due, _ in self._under_way.values()), default=_NEVER)
            self._next_look = expected = min(first, self._looked + _TICK_SEC)
            if expected > self._looked:
                self._changed.wait(expected - self._looked)
                self._look(expected=expected)
            over = [(token, late) for token, (_, due, late) in self._under_way.items() if due <= self._looked]
            for token, _ in over:
                del self._under_way[token]
            return [late for _, late in over]

    def _look(self, *, expected: float) -> None:
        """Reads the clock. If it is later than expected, adds the difference to all deadlines."""
        self._looked = self._clock()
        late_sec = self._looked - expected
        if late_sec > _LATE_SEC:
            self._under_way = {
                token: (started, due + min(late_sec, self._looked - started), late)
                for token, (started, due, late) in self._under_way.items()
            }


def start_thread(target: Callable[[], None], name: str) -> bool:
    """Starts a daemon thread. Returns False if the system cannot start one."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True
