"""A Dask cluster: a scheduler and workers, each a process of its own, on loopback or on hosts of a test."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tests.support.hosts import LOOPBACK, Host

ROOT = pathlib.Path(__file__).parents[2]
_LIMIT_SEC = 60


class DaskCluster:
    """Starts the scheduler and the workers, and ends them at the end of the context.

    A worker is a pair of processes: a nanny, and the process that works, which the nanny starts again if it dies.

    Args:
      folder: for logs and for the files of workers.
      hosts: of the scheduler, and of each worker.
      settings: variables of the environment.
      worker_settings: more of them for each worker.
      code: the folder of the project that they import.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        hosts: Sequence[Host] = (LOOPBACK,) * 3,
        settings: Mapping[str, str] | None = None,
        worker_settings: Sequence[Mapping[str, str]] | None = None,
        code: str | os.PathLike[str] = ROOT,
    ):
        self._folder = pathlib.Path(folder)
        self._hosts = hosts
        self._code = code
        self._environment = os.environ | {
            "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn",
            **(settings or {}),
        }
        self._worker_settings = worker_settings or [{}] * len(hosts)
        self._file = self._folder / "scheduler.json"
        self._logs: dict[int, pathlib.Path] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DaskCluster:
        self._file.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            first, *others = self._hosts
            words = ["dask_scheduler", "--host", first.address, "--port", "0", *self._pages(first)]
            self.scheduler = self._start(stack, first, "scheduler", [*words, "--scheduler-file", str(self._file)])
            self._wait(lambda: self._file.exists() and self._file.stat().st_size, self.scheduler)
            self.address = json.loads(self._file.read_text())["address"]
            self.nannies = [self._start_worker(stack, *numbered) for numbered in enumerate(others)]
            for nanny in self.nannies:
                self._wait(functools.partial(self._is_registered, nanny), nanny)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_worker(self, stack: contextlib.ExitStack, number: int, host: Host) -> subprocess.Popen[bytes]:
        name = f"worker{number}"
        words = ["dask_worker", self.address, "--host", host.address, "--nthreads", "2", *self._pages(host)]
        words += ["--name", name, "--local-directory", str(self._folder / name), "--memory-limit", "0"]
        return self._start(stack, host, name, words, self._worker_settings[number])

    @staticmethod
    def _pages(host: Host) -> list[str]:
        """Flags that put the pages of a process at a free port; by default all want the same one."""
        return ["--dashboard-address", f"{host.address}:0"]

    def _start(
        self,
        stack: contextlib.ExitStack,
        host: Host,
        name: str,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        path = self._folder / f"{name}.log"
        with open(path, "w") as log:
            process = subprocess.Popen(
                [*host.prefix, sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._code,
                start_new_session=True,
                env={**self._environment, **(environment or {})},
            )
        self._logs[process.pid] = path
        stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        return self._logs[process.pid].read_text()

    def _is_registered(self, nanny: subprocess.Popen[bytes]) -> bool:
        return "Registered to" in self.log_of(nanny)

    def _wait(self, is_true: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _LIMIT_SEC
        while not is_true():
            assert process.poll() is None, self.log_of(process)
            assert time.monotonic() < deadline, self.log_of(process)
            time.sleep(0.02)
