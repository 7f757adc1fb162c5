"""Keeps off the terminal what Beam and its child processes say about faults that we tell in one line."""

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

# What Beam logs about a fault that is raised as well: for some, with the critical level.
_ABOVE_ALL_LEVELS = logging.CRITICAL + 1
# A function of Beam's portable runner that logs the messages of its job service.
_LOGS_MESSAGES = "read_messages"


@contextlib.contextmanager
def quiet_beam() -> Iterator[None]:
    """Beam says nothing: it logs, some with tracebacks, what it raises as well."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(_ABOVE_ALL_LEVELS)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def quiet_job_service() -> Iterator[None]:
    """Beam's own job service, in this process, says nothing: it tells four times and more why a job failed.

    It does so by Beam's loggers, in messages to its client, which logs them by the root logger, and where a worker is
    gone, by threads that end. What workers log comes by the root logger as well, and passes.
    """
    import grpc  # type: ignore[import-untyped]

    root, before = logging.getLogger(), threading.excepthook

    def is_no_message(record: logging.LogRecord) -> bool:
        return record.funcName != _LOGS_MESSAGES

    def unless_disconnected(fault: Any) -> None:
        if not isinstance(fault.exc_value, grpc.RpcError):
            before(fault)

    root.addFilter(is_no_message)
    threading.excepthook = unless_disconnected
    try:
        with quiet_beam():
            yield
    finally:
        root.removeFilter(is_no_message)
        threading.excepthook = before


@contextlib.contextmanager
def quiet_children() -> Iterator[None]:
    """Child processes, in which Beam packs the project, write on standard error only what explains why one failed."""
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
    with contextlib.suppress(OSError):  # Nobody reads it.
        os.write(descriptor, stream.read())
