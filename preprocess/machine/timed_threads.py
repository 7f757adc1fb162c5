"""Pools of threads that can be given up: none keeps the process from exiting, and one that hangs is replaced.

`concurrent.futures` joins its threads when the interpreter exits, so a read that hangs (NFS, a stalled socket) would
keep a finished program from ending, and its pools do not grow back what hangs. Where the system has not as many threads
to give as are wanted, a pool makes do with those that it gets.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from preprocess.machine.deadlines import DeadlineWatch, start_thread
from preprocess.machine.machine_faults import MachineFault

# Threads that hang at once, in a process. Each keeps a stack and perhaps a socket.
MAX_STUCK_THREADS = 64


class DaemonThreads:
    """A pool of threads that run what is submitted, in order.

    Args:
      num_threads: how many.
      name: of the threads, for those who look at a dump.

    Raises:
      MachineFault: not even one can be started.
    """

    def __init__(self, num_threads: int, name: str):
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        if not [True for _ in range(num_threads) if start_thread(self._serve, name)]:
            raise MachineFault("no thread can be started (a limit on processes?)")

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

    def finish(self) -> TimedTask | None:
        """After `run`, in its thread, if it ended in time; gives what the thread does next, with a clock of its own."""

    def give_up(self, error: OSError | None) -> None:
        """Instead of `finish`, in another thread: `run` takes too long, or, with an error, so does too much else."""


class TimedThreads:
    """A pool of threads for tasks that may hang: each that does costs its own task, and a fresh thread takes its place.

    With more than `max_stuck` threads that hang at once, or none left that serves, the pool gives up all that waits,
    with an OSError, and what is submitted from then on, until enough of them have come back.

    Args:
      num_threads: threads that take tasks.
      name: of the threads.
      max_stuck: threads that may hang beside them.

    Raises:
      MachineFault: not even one thread can be started.
    """

    def __init__(self, num_threads: int, name: str, *, max_stuck: int = MAX_STUCK_THREADS):
        self._num_threads = num_threads
        self._name = name
        self._max_stuck = max_stuck
        self._tasks: queue.SimpleQueue[TimedTask] = queue.SimpleQueue()
        self._watch = DeadlineWatch(f"{name}-deadlines")
        self._lock = threading.Lock()  # Guards all that follows.
        self._serving = 0
        self._stuck = 0
        self._start_missing_threads()
        if not self._serving:
            raise MachineFault("no thread can be started (a limit on processes?)")

    @property
    def num_stuck(self) -> int:
        """Threads that hang now."""
        return self._stuck

    def submit(self, task: TimedTask) -> None:
        """Has a task run in one of the threads."""
        with self._lock:
            error = self._no_answer()
            if error is None:
                self._tasks.put(task)
                return
        task.give_up(error)

    def _no_answer(self) -> OSError | None:
        """What is wrong if nothing more is to be begun."""
        if self._stuck <= self._max_stuck:
            self._start_missing_threads()
            if self._serving:
                return None
        return MachineFault(f"storage does not answer: {self._stuck} reads hang in this process")

    def _start_missing_threads(self) -> None:
        while self._serving < self._num_threads and start_thread(self._serve, self._name):
            self._serving += 1

    def _serve(self) -> None:
        serving = True
        while serving:
            task: TimedTask | None = self._tasks.get()
            assert task is not None
            task.prepare()
            while task is not None:
                clock = self._watch.start(task.deadline_sec, functools.partial(self._give_up, task))
                task.run()
                if self._watch.end(clock):
                    task = task.finish()
                else:
                    task = None
                    with self._lock:
                        serving = self._come_back()

    def _come_back(self) -> bool:
        """Of a thread that hung: whether it goes on serving, because nobody has taken its place."""
        self._stuck -= 1
        if self._serving >= self._num_threads:
            return False
        self._serving += 1
        return True

    def _give_up(self, task: TimedTask) -> None:
        """Of the thread that runs a task which takes too long; called by the thread that watches."""
        waiting: list[TimedTask] = []
        with self._lock:
            self._serving -= 1
            self._stuck += 1
            error = self._no_answer()
            if error is not None:
                # The threads that still serve take from the queue meanwhile.
                with contextlib.suppress(queue.Empty):
                    while True:
                        waiting.append(self._tasks.get_nowait())
        task.give_up(error)
        for other in waiting:
            other.give_up(error)
