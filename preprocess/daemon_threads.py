"""Pools of threads that can be given up: none keeps the process from exiting, and one that hangs is replaced.

`concurrent.futures` joins its threads when the interpreter exits, so a read that hangs (NFS, a stalled socket) would
keep a finished program from ending, and its pools do not grow back what hangs.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

# Threads that hang at once, in a process. Each keeps a stack and perhaps a socket.
MAX_STUCK_THREADS = 64


class DaemonThreads:
    """A pool of threads that run what is submitted, in order.

    Args:
      num_threads: how many.
      name: of the threads, for those who look at a dump.
    """

    def __init__(self, num_threads: int, name: str):
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for _ in range(num_threads):
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(self, task: Callable[[], None]) -> None:
        """Has a task run; it raises nothing."""
        self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


class TimedTask(Protocol):
    """A task with a part that may hang. Its methods raise nothing; of the last two, exactly one is called, once.

    Attributes:
      deadline_sec: seconds that `run` may take.
    """

    @property
    def deadline_sec(self) -> float:
        """Seconds that `run` may take."""

    def prepare(self) -> None:
        """Before the clock starts; may wait for what is sure to come."""

    def run(self) -> None:
        """What may hang. It may end after the task was given up, so its result is for `finish` only."""

    def finish(self) -> None:
        """After `run`, in its thread, if it ended in time."""

    def give_up(self, error: OSError | None) -> None:
        """Instead of `finish`, in another thread: `run` takes too long, or, with an error, so does too much else."""


class TimedThreads:
    """A pool of threads for tasks that may hang: each that does costs its own task, and a fresh thread takes its place.

    With more than `max_stuck` threads that hang at once, the pool gives up all that waits, with an OSError, and
    what is submitted from then on, until enough of them have come back.

    Args:
      num_threads: threads that take tasks.
      name: of the threads.
      max_stuck: threads that may hang beside them.
    """

    def __init__(self, num_threads: int, name: str, *, max_stuck: int = MAX_STUCK_THREADS):
        self._num_threads = num_threads
        self._name = name
        self._max_stuck = max_stuck
        self._tasks: queue.SimpleQueue[TimedTask] = queue.SimpleQueue()
        # Guards all that follows; notified when a deadline comes before the one that is waited for.
        self._changed = threading.Condition()
        self._due_by_task: dict[TimedTask, float] = {}
        self._next_check = float("inf")
        self._serving = 0
        self._stuck = 0
        with self._changed:
            self._start_missing_threads()
        threading.Thread(target=self._watch, name=f"{name}-deadlines", daemon=True).start()

    @property
    def num_stuck(self) -> int:
        """Threads that hang now."""
        return self._stuck

    def submit(self, task: TimedTask) -> None:
        """Has a task run in one of the threads."""
        with self._changed:
            if self._stuck <= self._max_stuck:
                self._tasks.put(task)
                return
        task.give_up(self._no_answer())

    def _no_answer(self) -> OSError:
        return OSError(f"storage does not answer: {self._stuck} reads hang in this process")

    def _start_missing_threads(self) -> None:
        while self._serving < self._num_threads:
            self._serving += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        serving = True
        while serving:
            task = self._tasks.get()
            task.prepare()
            self._start_clock(task)
            task.run()
            with self._changed:
                in_time = self._due_by_task.pop(task, None) is not None
                if not in_time:
                    serving = self._come_back()
            if in_time:
                task.finish()
            del task  # and with it what it has read, while this thread waits

    def _start_clock(self, task: TimedTask) -> None:
        due = time.monotonic() + task.deadline_sec
        with self._changed:
            self._due_by_task[task] = due
            if due < self._next_check:
                self._next_check = due
                self._changed.notify()

    def _come_back(self) -> bool:
        """Of a thread that hung: whether it goes on serving, because nobody has taken its place."""
        self._stuck -= 1
        if self._serving == self._num_threads:
            return False
        self._serving += 1
        return True

    def _watch(self) -> None:
        while True:
            late: list[tuple[TimedTask, OSError | None]] = []
            with self._changed:
                now = time.monotonic()
                if self._next_check > now:
                    self._changed.wait(None if self._next_check == float("inf") else self._next_check - now)
                    continue
                for task in [task for task, due in self._due_by_task.items() if due <= now]:
                    del self._due_by_task[task]
                    self._serving -= 1
                    self._stuck += 1
                    late.append((task, self._no_answer() if self._stuck > self._max_stuck else None))
                self._next_check = min(self._due_by_task.values(), default=float("inf"))
                if self._stuck <= self._max_stuck:
                    self._start_missing_threads()
                else:
                    # The threads that still serve take from the queue meanwhile.
                    with contextlib.suppress(queue.Empty):
                        while True:
                            late.append((self._tasks.get_nowait(), self._no_answer()))
            for task, error in late:
                task.give_up(error)
