"""Hides the messages of Beam and its child processes about faults that our programs report in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

from configs.errors import InputError

# Beam logs faults that it also raises, some of them with the critical level. So the level must be above that.
_ABOVE_ALL_LEVELS = logging.CRITICAL + 1
# A function of Beam's portable runner that logs the messages of its job service.
_LOGS_MESSAGES = "read_messages"


@contextlib.contextmanager
def quiet_beam() -> Iterator[None]:
    """Within this context Beam logs nothing. It would log faults that it also raises, some with tracebacks."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(_ABOVE_ALL_LEVELS)
    try:
        yield
    finally:
        logger.setLevel(level)


def quiet_dask() -> None:
    """Makes Dask's client in this process log nothing from now on. It would log faults that it also raises."""
    for name in list(logging.root.manager.loggerDict):
        # Each of its loggers has a level of its own, which Dask sets when it is imported.
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(_ABOVE_ALL_LEVELS)


@contextlib.contextmanager
def quiet_job_service() -> Iterator[None]:
    """Within this context Beam's own job service in this process prints nothing about a failed job.

    It would print the fault at least four times: through Beam's loggers, in messages to its client, which logs them
    with the root logger, and through threads that end with an exception if a worker has ended. The messages of workers
    also come through the root logger, and these are printed.
    """

    def is_no_message(record: logging.LogRecord) -> bool:
        return record.funcName != _LOGS_MESSAGES

    root = logging.getLogger()
    root.addFilter(is_no_message)
    try:
        with quiet_beam(), quiet_disconnections():
            yield
    finally:
        root.removeFilter(is_no_message)


@contextlib.contextmanager
def quiet_disconnections() -> Iterator[None]:
    """Within this context, threads of Beam that end because a job server or a worker has ended print no traceback."""
    import grpc  # type: ignore[import-untyped]

    before = threading.excepthook

    def unless_disconnected(fault: Any) -> None:
        if not isinstance(fault.exc_value, grpc.RpcError):
            before(fault)

    threading.excepthook = unless_disconnected
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def quiet_children() -> Iterator[None]:
    """Within this context, the output of Beam's child processes, which pack the project, is shown only if one fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept, contextlib.ExitStack() as stack:
        stderr = os.dup(2)
        stack.callback(os.close, stderr)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception as error:
            if not isinstance(error, InputError) or isinstance(error.__cause__, RuntimeError):
                stack.callback(_copy_to, stderr, kept)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)


def _copy_to(descriptor: int, stream: IO[bytes]) -> None:
    stream.seek(0)
    with contextlib.suppress(OSError):  # The reader of standard error may have closed it.
        os.write(descriptor, stream.read())
