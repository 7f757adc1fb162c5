"""A program that something else starts, as a fork of the fork server, with its streams and its exit code.

    python -m tests.support.fork_client [--tensorflow] [-u] -m MODULE ARGUMENTS...
    python -m tests.support.fork_client [--tensorflow] [-u] -c CODE ARGUMENTS...

It is `python ARGUMENTS...` without the imports of Beam (and TensorFlow); and just that, if the server refuses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from tests.support.forked_program import ask_server, wait_for_code


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def main(arguments: list[str]) -> None:
    streams = {descriptor: descriptor for descriptor in range(3) if _is_open(descriptor)}
    tensorflow = arguments[0] == "--tensorflow"
    arguments = arguments[tensorflow:]
    forked = arguments[arguments[0] == "-u" :]
    started = ask_server(forked, environment=os.environ, folder=os.getcwd(), streams=streams, tensorflow=tensorflow)
    if started is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    for descriptor in streams:  # Only the program has them from now on: whoever reads a pipe sees its end.
        os.close(descriptor)
    code = wait_for_code(started[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
