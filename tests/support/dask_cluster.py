"""A Dask cluster on loopback: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

_LIMIT_SEC = 60


class DaskCluster:
    """Starts the scheduler and `workers` workers in `folder`, and ends them at the end of the context.

    A worker is a pair of processes: a nanny, and the process that works, which the nanny starts again if it dies.
    """

    def __init__(self, folder, *, workers=2, settings=None, tmpdirs=()):
        self._folder = pathlib.Path(folder)
        self._number = workers
        self._environment = os.environ | {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
            "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn",
            **(settings or {}),
        }
        self._tmpdirs = tmpdirs
        self._file = self._folder / "scheduler.json"
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
            self.scheduler = self._start(stack, "scheduler", [*scheduler, "--scheduler-file", str(self._file)])
            self._wait(lambda: self._file.exists() and self._file.stat().st_size, self.scheduler)
            self.address = json.loads(self._file.read_text())["address"]
            self.nannies = [self.start_worker(stack, number) for number in range(self._number)]
            for nanny in self.nannies:
                self._wait(lambda nanny=nanny: "Registered to" in self.log_of(nanny), nanny)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def start_worker(self, stack, number):
        name = f"worker{number}"
        environment = {"TMPDIR": str(self._tmpdirs[number])} if self._tmpdirs else {}
        command = ["dask_worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
        command += ["--name", name, "--local-directory", str(self._folder / name), "--memory-limit", "0"]
        return self._start(stack, name, command, environment)

    def _start(self, stack, name, words, environment=None):
        path = self._folder / f"{name}.log"
        with open(path, "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment | (environment or {}),
            )
        process.log = path
        stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @staticmethod
    def log_of(process):
        return process.log.read_text()

    def _wait(self, is_true, process):
        deadline = time.monotonic() + _LIMIT_SEC
        while not is_true():
            assert process.poll() is None, self.log_of(process)
            assert time.monotonic() < deadline, self.log_of(process)
            time.sleep(0.02)
