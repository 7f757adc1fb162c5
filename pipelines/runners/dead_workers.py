"""Fails the job if a worker dies or does not start, for jobs in Beam's own job service (--job_endpoint=embed).

The job service of Beam 2.77 waits forever for the answer of a worker. If a worker is killed between two bundles, or if
its process ends before it connects, the job hangs. Flink, Spark and Dataflow watch their workers themselves.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import ControlConnection

# Importing Beam and TensorFlow takes seconds, but up to a minute on a busy machine with a cold disk cache.
START_LIMIT_SEC = 180.0


class WatchedConnection(ControlConnection):
    """The job service's connection to one worker. If the worker ends, all requests that wait for it get an error.

    Attributes:
      start_limit_sec: how long a worker may take from the first request for it until it connects.
    """

    start_limit_sec = START_LIMIT_SEC

    def __init__(self) -> None:
        super().__init__()
        self._fault: str | None = None
        self._start_timer: threading.Timer | None = None

    def push(self, req: Any) -> Any:
        """Sends a request; returns the future of its answer."""
        future = super().push(req)
        if future is not None and self._state == "unstarted" and self._start_timer is None:
            self._start_timer = threading.Timer(self.start_limit_sec, self._give_up)
            self._start_timer.daemon = True
            self._start_timer.start()
        if self._fault is not None:
            self._fail(self._fault)
        return future

    def set_input(self, input: Any) -> None:
        """Called when the worker has connected."""
        if self._start_timer is not None:
            self._start_timer.cancel()
        super().set_input(input)

    def _read(self) -> None:
        # The connection is broken, so no request will be answered any more.
        with contextlib.suppress(Exception):
            super()._read()
        self._fail("A worker has ended, and with it its connection. Look at what it logged.")

    def _give_up(self) -> None:
        self._fail(
            f"No worker has connected within {self.start_limit_sec:.0f} s. Check that what --environment_type and "
            "--environment_config name starts workers, and look at what it logged."
        )

    def _fail(self, fault: str) -> None:
        self._fault = fault
        while self._futures_by_id:
            instruction_id, future = self._futures_by_id.popitem()
            # The error is sent as a worker's answer, because not all waiting code handles an exception.
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, error=fault))


def watch_workers() -> None:
    """Makes all job services of this process use `WatchedConnection`."""
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    worker_handlers.ControlConnection = WatchedConnection
