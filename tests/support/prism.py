"""Beam's Prism as a server of its own, and a pool of Beam workers for it. `make cluster` installs Prism."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PRISM = pathlib.Path(os.environ.get("PRISM", ROOT / ".venv/cluster/bin/prism"))
WHY_NOT = f"{PRISM} is not there: make cluster installs it, with Go"
_LIMIT_SEC = 60


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def prism(folder: str | os.PathLike[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process of a job server, and its port."""
    port = free_port()
    log = pathlib.Path(folder) / "prism.log"
    with open(log, "w") as stream:
        server = subprocess.Popen(
            [PRISM, f"-job_port={port}", "-serve_http=false", "-log_kind=text"], stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + _LIMIT_SEC
        while "Serving JobManagement" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield server, port
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def worker_pool(folder: str | os.PathLike[str]) -> Iterator[int]:
    """The port of a pool. Its workers have this environment and this checkout."""
    programs = pathlib.Path(sys.prefix) / "bin"
    program = pathlib.Path(folder) / "loopback_worker_pool.py"
    shutil.copy(ROOT / "tests/support" / program.name, program)
    with open(pathlib.Path(folder) / "workers.log", "w") as log:
        pool = subprocess.Popen(
            [programs / "python", program],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        )
    try:
        assert pool.stdout is not None
        yield int(pool.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pool.pid, signal.SIGKILL)
        pool.communicate()
