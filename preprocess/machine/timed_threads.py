"""Pools of threads that may hang: a hanging thread is replaced, and no thread keeps the process from exiting.

`concurrent.futures` joins its threads when the interpreter exits. So a read that hangs (NFS, a stalled socket) would
keep a finished program from ending; and its pools do not replace hanging threads. If the system cannot start all
threads of a pool, the pool works with fewer.
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

# The largest number of threads that may hang at once in a process. Each keeps a stack and perhaps a socket.
MAX_STUCK_THREADS = 64


class DaemonThreads:
    """A pool of threads that run submitted tasks in order.

    Args:
      num_threads: the number of threads.
      name: of the threads, for stack dumps.

    Raises:
      MachineFault: no thread can be started.
    """

    def __init__(self, num_threads: int, name: str):
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        if not [True for _ in range(num_threads) if start_thread(self._serve, name)]:
            raise MachineFault("no thread can be started (a limit on processes?)")

    def submit(self, task: Callable[[], None]) -> None:
        """Submits a task, which must not raise exceptions."""
        self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


class TimedTask(Protocol):
    """A task with a part that may hang. Its methods must not raise. Either `finish` or `give_up` is called, once.

    Attributes:
      deadline_sec: seconds that `run` may take.
    """

    @property
    def deadline_sec(self) -> float:
        """Seconds that `run` may take."""

    def prepare(self) -> None:
        """Called before the deadline starts. It may wait, but not for something that may hang."""

    def run(self) -> None:
        """The part that may hang. It may end after `give_up` was called, so only `finish` may use its result."""

    def finish(self) -> TimedTask | None:
        """Called after `run` in the same thread, if `run` ended in time. It may return a task to run next."""

    def give_up(self, error: OSError | None) -> None:
        """Called in another thread instead of `finish`.

        Args:
          error: None if `run` took too long; otherwise the reason why the pool gave up all waiting tasks.
        """


class TimedThreads:
    """A pool of threads for tasks that may hang. A task that hangs fails alone, and a new thread replaces its thread.

    If more than `max_stuck` threads hang at once, or if no thread is left to serve, the pool gives up all waiting tasks
    with an OSError. It also gives up new tasks, until enough hanging threads have come back.

    Args:
      num_threads: the number of threads that take tasks.
      name: of the threads.
      max_stuck: the number of other threads that may hang.

    Raises:
      MachineFault: no thread can be started.
    """

    def __init__(self, num_threads: int, name: str, *, max_stuck: int = MAX_STUCK_THREADS):
        self._num_threads = num_threads
        self._name = name
        self._max_stuck = max_stuck
        self._tasks: queue.SimpleQueue[TimedTask] = queue.SimpleQueue()
        self._watch = DeadlineWatch(f"{name}-deadlines")
        self._lock = threading.Lock()  # Guards all fields below.
        self._serving = 0
        self._stuck = 0
        self._start_missing_threads()
        if not self._serving:
            raise MachineFault("no thread can be started (a limit on processes?)")

    @property
    def num_stuck(self) -> int:
        """The number of threads that hang now."""
        return self._stuck

    def submit(self, task: TimedTask) -> None:
        """Submits a task to the threads."""
        with self._lock:
            error = self._no_answer()
            if error is None:
                self._tasks.put(task)
                return
        task.give_up(error)

    def _no_answer(self) -> OSError | None:
        """The reason why no task can be started; None if tasks can be started."""
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
        """Called by a thread that hung. Returns whether it serves again, which depends on the number of threads."""
        self._stuck -= 1
        if self._serving >= self._num_threads:
            return False
        self._serving += 1
        return True

    def _give_up(self, task: TimedTask) -> None:
        """Gives up a task that takes too long. The watching thread calls this."""
        waiting: list[TimedTask] = []
        with self._lock:
            self._serving -= 1
            self._stuck += 1
            error = self._no_answer()
            if error is not None:
                # Serving threads may take tasks from the queue at the same time.
                with contextlib.suppress(queue.Empty):
                    while True:
                        waiting.append(self._tasks.get_nowait())
        task.give_up(error)
        for other in waiting:
            other.give_up(error)
