"""Says on standard error what a program is doing, so that nobody looks at a blank screen and wonders.

    with doing("reading photos", total=300, unit="photo") as reading:
        for photo in photos:
            ...
            reading.advance()

Something is shown only if it takes longer than `_SHOWN_AFTER_SEC`. On a terminal it is one line that is updated until
the activity ends: a bar if the total is known, else the time that has passed. Elsewhere it is a line at once, and
further lines at growing distances. Programs show activities (`run_program`); libraries, workers and tests do not, and
then `doing` costs next to nothing.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from configs.console import on_printing, printable, second_standard_error
from configs.counts import counted

_SHOWN_AFTER_SEC = 1.0
_TICK_SEC = 0.25
# The seconds between two lines of an activity where there is no terminal, at first and at last.
_FIRST_DISTANCE_SEC, _LAST_DISTANCE_SEC = 4.0, 15.0
# The rate is that of the last so many seconds. So it does not contain the start, and the time left is believable.
_RATE_OF_LAST_SEC = 30.0
# The rate is shown if those of the two halves of that time differ by less than this factor.
_STEADY = 4


class Activity:
    """What a program is doing.

    Attributes:
      done: how many things are done. Only one thread may assign it; several threads call `advance`.
    """

    def __init__(self, what: str, total: int | None, unit: str, *, stays: bool):
        self.what = what
        self.total = total
        self.done = 0
        self.stays = stays
        self.started = time.monotonic()
        self.next_line = self.started + _SHOWN_AFTER_SEC
        self.lines = 0
        self.was_drawn = False
        self._unit = unit
        self._lock = threading.Lock()
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def advance(self, number: int = 1) -> None:
        """Counts things that are done."""
        with self._lock:
            self.done += number

    def becomes(self, what: str) -> None:
        """From now on the program does something else, of which no total is known."""
        with self._lock:
            self.what, self.total, self.done = what, None, 0
            self.started = time.monotonic()
            self.next_line, self.lines = self.started, 0

    def sample(self, now: float) -> None:
        """Notes how much is done, for the rate. The first things that are done are where the measurement begins."""
        if not self.done:
            return
        if not self._samples or now - self._samples[-1][0] >= _TICK_SEC:
            self._samples.append((now, self.done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_OF_LAST_SEC:
            self._samples.popleft()

    @property
    def rate(self) -> float | None:
        """Things a second; None as long as it is not known."""
        if len(self._samples) < 2:
            return None
        (first, done_first), (last, done_last) = self._samples[0], self._samples[-1]
        return (done_last - done_first) / (last - first) or None

    @property
    def is_steady(self) -> bool:
        """Whether the rate of the second half of its time is like that of the first, so that it says when work ends.

        It does not while a program starts: a training compiles before its first steps, and once more before its first
        evaluation.
        """
        if len(self._samples) < 2:
            return False
        (first, done_first), (last, done_last) = self._samples[0], self._samples[-1]
        in_middle = max(done for at, done in self._samples if at <= (first + last) / 2)
        halves = in_middle - done_first, done_last - in_middle
        # 1: where few things are done, one more says nothing.
        return done_last > done_first and max(halves) <= _STEADY * min(halves) + 1

    def line(self, now: float) -> str:
        """The state as a line of a log."""
        from tqdm import tqdm  # here: programs whose work is short do not need it

        elapsed = tqdm.format_interval(now - self.started)
        if not self.lines or not self.done:
            return f"{self.what} …" if not self.lines else f"{self.what} … {elapsed}"
        if not self.total:
            return f"{self.what}: {counted(self.done, self._unit)}, {elapsed}"
        words = f"{self.what}: {self.done} of {counted(self.total, self._unit)} ({100 * self.done / self.total:.0f} %)"
        if self.rate and self.is_steady:
            left = tqdm.format_interval(max(self.total - self.done, 0) / self.rate)
            words += f", {self.rate:.1f} {self._unit}s/s, {left} left"
        return words

    def bar(self, now: float, columns: int) -> str:
        """The state as one line of a terminal."""
        from tqdm import tqdm

        elapsed = now - self.started
        if not self.total:
            words = f"{self.what} … {tqdm.format_interval(elapsed)}"
            return (words + (f", {counted(self.done, self._unit)}" if self.done else ""))[:columns]
        return str(
            tqdm.format_meter(
                self.done,
                self.total,
                elapsed,
                ncols=columns,
                prefix=self.what,
                unit=f" {self._unit}s",
                rate=self.rate,
                bar_format=None if self.is_steady else "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}]",
            )
        )


class Screen:
    """Shows the activities of a process, the innermost one at a time. Thread-safe, also for signal handlers."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._shared = _descriptors_of_same_file(stream)
        self._lock = threading.RLock()
        self._activities: list[Activity] = []
        self._some = threading.Event()
        self._drawn = False
        self._last_output = time.monotonic()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Writes nothing from now on: the descriptor may belong to another file later."""
        with self._lock:
            self._clear()
            self._is_closed = True

    def add(self, activity: Activity) -> None:
        """Shows an activity from now on, in the place of the one that it is a part of."""
        with self._lock:
            self._activities.append(activity)
            self._some.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="activity", daemon=True)
                with contextlib.suppress(RuntimeError):  # No thread can be started. Then nothing is shown.
                    self._thread.start()

    def remove(self, activity: Activity) -> None:
        """The activity has ended."""
        with self._lock:
            self._activities.remove(activity)
            if not self._activities:
                self._some.clear()
            if activity.stays and activity.was_drawn:
                now = time.monotonic()
                activity.sample(now)
                self._clear()
                self._write(activity.bar(now, self._columns()) + "\n")
            elif self._drawn:
                self._clear()

    def make_room(self, descriptor: int) -> None:
        """Removes the line from the terminal, because something else is printed there now.

        Args:
          descriptor: what is printed to. Printing to another file than that of this screen changes nothing.
        """
        if descriptor not in self._shared:
            return
        with self._lock:
            self._last_output = time.monotonic()
            self._clear()

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_TICK_SEC)
            with self._lock:
                if self._activities:
                    self._show(self._activities[-1], time.monotonic())

    def _show(self, activity: Activity, now: float) -> None:
        activity.sample(now)
        if now - max(activity.started, self._last_output) < _SHOWN_AFTER_SEC and not self._drawn:
            return
        if self._is_terminal:
            self._write("\r" + printable(activity.bar(now, self._columns())) + "\x1b[K")
            self._drawn = activity.was_drawn = True
        elif now >= activity.next_line:
            self._write(printable(activity.line(now)) + "\n")
            distance = _FIRST_DISTANCE_SEC * 2**activity.lines
            activity.next_line = now + min(distance, _LAST_DISTANCE_SEC)
            activity.lines += 1

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        if self._is_closed:
            return
        self._stream.write(text)
        self._stream.flush()

    def _columns(self) -> int:
        try:
            # Some terminals in containers have no size.
            return (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1
        except (OSError, ValueError):
            return 79


def _descriptors_of_same_file(stream: TextIO) -> frozenset[int]:
    """Of standard output and standard error those that are the same terminal or file as a stream."""
    try:
        ours = os.fstat(stream.fileno())
        return frozenset(descriptor for descriptor in (1, 2) if os.path.samestat(ours, os.fstat(descriptor)))
    except (OSError, ValueError):  # The stream has no descriptor, or one of the two is closed.
        return frozenset({2})


_screen: Screen | None = None


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[None]:
    """Within this context, activities of this process are shown.

    Args:
      stream: where they are shown; None for standard error. If other code redirects that, they are still shown. With
        HUGS_PROGRESS=0 in the environment nothing is shown there, for whoever compares what programs print.
    """
    global _screen
    if stream is None and os.environ.get("HUGS_PROGRESS") == "0":
        yield
        return
    before = _screen
    with contextlib.ExitStack() as stack:
        screen = Screen(stream if stream is not None else stack.enter_context(second_standard_error()))
        stack.enter_context(on_printing(screen.make_room))
        _screen = screen
        try:
            yield
        finally:
            _screen = before
            screen.close()


@contextlib.contextmanager
def doing(what: str, *, total: int | None = None, unit: str = "", stays: bool = False) -> Iterator[Activity]:
    """Within this context the program says that it is doing something, if that takes long.

    Args:
      what: in words, such as "reading the lists". Of activities within each other, the innermost is shown.
      total: how many things there are to do, if that is known.
      unit: the name of one of them; its plural has an "s".
      stays: whether the bar stays on the terminal at the end.

    Yields:
      The activity, which is told what is done.
    """
    activity, screen = Activity(what, total, unit, stays=stays), _screen
    if screen is None:
        yield activity
        return
    screen.add(activity)
    try:
        yield activity
    finally:
        screen.remove(activity)
