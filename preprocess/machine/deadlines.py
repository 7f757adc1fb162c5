"""Deadlines of what runs in other threads and processes, which count only time in which this process could run.

A process that is stopped (SIGSTOP, a debugger, a container that is frozen) and a machine that sleeps or has no core to
spare let nothing end in time, and that is nobody's fault. The watching thread looks at least once a second; where it
comes back later than it asked to, it gives that time back to all that is under way. The clock is the monotonic one,
which nobody sets.
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
# Waking up takes time on a machine with work to do.
_LATE_SEC = 0.1
_NEVER = float("inf")


class DeadlineWatch:
    """Calls what was agreed on for everything that takes longer than it may. Its methods may be called by any thread.

    `start` and `end` take about a microsecond, and wake nobody unless the deadline is shorter than a second.

    Args:
      name: of its thread, for those who look at a dump.
      clock: seconds that only grow.

    Raises:
      MachineFault: no thread can be started.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        # Guards all that follows; notified when a deadline comes before the moment that is waited for.
        self._changed = threading.Condition()
        self._tokens = itertools.count()
        # By token: when it was started, when it is due, what to call then.
        self._under_way: dict[int, tuple[float, float, Callable[[], None]]] = {}
        self._next_look = _NEVER
        self._looked = clock()
        self._idle = False
        if not start_thread(self._watch, name):
            raise MachineFault("no thread can be started (a limit on processes?)")

    def start(self, seconds: float, late: Callable[[], None]) -> int:
        """Starts a clock.

        Args:
          seconds: from now on.
          late: called by the watching thread once they are over; it is to return at once.

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
        """Stops a clock; False if `late` was called or is about to be, or if it was stopped before."""
        with self._changed:
            return self._under_way.pop(token, None) is not None

    def _watch(self) -> None:
        while True:
            for late in self._wait_for_late():
                try:
                    late()
                except Exception:  # Without this thread nothing would ever be late again.
                    _LOGGER.exception("A deadline was noticed, and what was to be done then failed.")

    def _wait_for_late(self) -> list[Callable[[], None]]:
        with self._changed:
            self._look(planned=self._looked)
            if not self._under_way and self._idle:
                self._next_look = _NEVER
                self._changed.wait()
                self._looked = self._clock()
            # One more round with nothing to do before that: else each of many short tasks would wake this thread.
            self._idle = not self._under_way
            first = min((due for _, due, _ in self._under_way.values()), default=_NEVER)
            self._next_look = planned = min(first, self._looked + _TICK_SEC)
            if planned > self._looked:
                self._changed.wait(planned - self._looked)
                self._look(planned=planned)
            over = [(token, late) for token, (_, due, late) in self._under_way.items() if due <= self._looked]
            for token, _ in over:
                del self._under_way[token]
            return [late for _, late in over]

    def _look(self, *, planned: float) -> None:
        """Takes the time, and gives back what it is later than planned."""
        self._looked = self._clock()
        late_sec = self._looked - planned
        if late_sec > _LATE_SEC:
            self._under_way = {
                token: (started, due + min(late_sec, self._looked - started), late)
                for token, (started, due, late) in self._under_way.items()
            }


def start_thread(target: Callable[[], None], name: str) -> bool:
    """Starts a daemon thread; False where the system has none to give."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True
