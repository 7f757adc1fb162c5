"""Keeps the number of images that are read from one web host at once within a limit.

Images of a host that has reached its limit wait in a queue of that host, not in a thread: so a slow host takes its own
share of the readers, and the others read from other hosts.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Task = TypeVar("_Task")
# As polite as image crawlers and browsers are.
DEFAULT_CONNECTIONS_PER_HOST = 8


class HostQueues(Generic[_Task]):
    """The tasks of hosts. Threads may share it.

    Args:
      start: starts a task.
      limit: the largest number of tasks of one host that have started and not ended.
    """

    def __init__(self, start: Callable[[_Task], None], limit: int):
        self._start = start
        self._limit = limit
        self._lock = threading.Lock()
        self._running: collections.Counter[str] = collections.Counter()
        self._waiting: dict[str, collections.deque[_Task]] = {}

    def submit(self, host: str, task: _Task) -> None:
        """Starts a task, or keeps it until another task of its host ends."""
        with self._lock:
            if self._running[host] >= self._limit:
                self._waiting.setdefault(host, collections.deque()).append(task)
                return
            self._running[host] += 1
        self._start(task)

    def end(self, host: str) -> None:
        """Must be called once for each task that has started, when it ends."""
        with self._lock:
            waiting = self._waiting.get(host)
            if not waiting:
                self._running[host] -= 1
                if not self._running[host]:
                    del self._running[host]
                return
            task = waiting.popleft()
            if not waiting:
                del self._waiting[host]
        self._start(task)
