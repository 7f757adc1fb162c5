"""A program that the fork server has started for a test, with what tests use of `subprocess.Popen`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from tests.support.fork_server import MOST_BYTES, REFUSED

# The variable of the environment that names the server's socket.
SOCKET = "TESTS_FORK_SERVER"


class ForkedProgram:
    """A running program; `pid`, `returncode`, `stdin`, `stdout` and `stderr` are those of Popen."""

    def __init__(self, arguments: Sequence[str], pid: int, connection: socket.socket, streams: Sequence[TextIO | None]):
        self.args = arguments
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = streams
        self._connection = connection
        self._texts: dict[TextIO, str] = {}
        self._readers: list[threading.Thread] = []

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = wait_for_code(self._connection)
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str | None, str | None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._readers:
            self._readers = [threading.Thread(target=self._exchange, args=[input], daemon=True)]
            self._readers += [
                threading.Thread(target=self._read, args=[stream], daemon=True)
                for stream in (self.stdout, self.stderr)
                if stream is not None
            ]
            for thread in self._readers:
                thread.start()
        for thread in self._readers:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        stdout, stderr = (None if stream is None else self._texts[stream] for stream in (self.stdout, self.stderr))
        return stdout, stderr

    def _exchange(self, text: str | None) -> None:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                if text:
                    self.stdin.write(text)

    def _read(self, stream: TextIO) -> None:
        with stream:
            self._texts[stream] = stream.read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def _pipe(*, to_program: bool) -> Iterator[tuple[TextIO, int]]:
    """Our end of a pipe, and the program's, which is open here only within this context."""
    reading, writing = os.pipe()
    ours, its = (writing, reading) if to_program else (reading, writing)
    try:
        yield open(ours, "w" if to_program else "r"), its  # noqa: SIM115
    finally:
        os.close(its)


def ask_server(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str | os.PathLike[str],
    streams: Mapping[int, int],
    tensorflow: bool = False,
) -> tuple[int, socket.socket] | None:
    """Asks the server to start a program.

    Args:
      arguments: of Python.
      environment: all of it.
      folder: the current one.
      streams: for each of the descriptors 0, 1 and 2 that the program has, which one of this process that is.
      tensorflow: the program imports TensorFlow.

    Returns:
      The process id, and the connection to the server; None if there is no server, or if it refuses the program.
    """
    path = os.environ.get(SOCKET)
    if not path or arguments[0] not in ("-m", "-c"):
        return None
    program = {
        "arguments": list(map(str, arguments)),
        "folder": str(folder),
        "environment": dict(environment),
        "streams": list(streams),
        "tensorflow": tensorflow,
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    message = json.dumps(program).encode()
    assert len(message) < MOST_BYTES
    socket.send_fds(connection, [message], list(streams.values()))
    answer = connection.recv(MOST_BYTES)
    if answer == REFUSED:
        connection.close()
        return None
    assert answer.isdigit(), f"the fork server has failed: {answer.decode()}"
    return int(answer), connection


def wait_for_code(connection: socket.socket) -> int:
    """Waits for the end of a program; gives its exit code, as `subprocess` does."""
    assert connection.recv(16), "the fork server has ended"
    connection.send(b"code")
    code = int(connection.recv(16))
    connection.close()
    return code


def fork_program(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str | os.PathLike[str],
    stdin: int | None = None,
    tensorflow: bool = False,
) -> ForkedProgram | None:
    """As `ask_server`, with pipes as standard output and standard error.

    Args:
      stdin: `subprocess.PIPE`; None for the standard input of this process.
    """
    with contextlib.ExitStack() as stack:
        ours: list[TextIO | None] = [None]
        its = {0: 0}
        if stdin == subprocess.PIPE:
            ours[0], its[0] = stack.enter_context(_pipe(to_program=True))
        for place in (1, 2):
            our_end, its[place] = stack.enter_context(_pipe(to_program=False))
            ours.append(our_end)
        started = ask_server(arguments, environment=environment, folder=folder, streams=its, tensorflow=tensorflow)
    if started is None:
        for stream in ours:
            if stream is not None:
                stream.close()
        return None
    return ForkedProgram(arguments, *started, ours)
