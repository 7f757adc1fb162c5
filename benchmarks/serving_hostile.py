"""Sends a thousand hostile requests to a server, and counts wrong answers, hangs and the growth of its memory.

    python -m benchmarks.serving_hostile [--requests N | --quick]

The requests are those of the tests (`tests.support.hostile_requests`), again and again, 32 at once, to a server with a
tiny network and short limits, in this process. After each round, a good photo must get its answer, and the memory of
this process is measured; that of the decoders has a limit of its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.report import finish, limit, say
from benchmarks.serving import memory_of
from configs.errors import EXIT_OK
from configs.program import run_program

_MAX_BODY_BYTES = 2_000_000
_AT_ONCE = 32
_MEBIBYTE = 1024 * 1024
_MAX_GROWTH_MIB = 128


class _Setting:
    """What `tiny_network.install` asks of pytest's monkeypatch, for good."""

    @staticmethod
    def setitem(mapping: Any, key: str, value: object) -> None:
        mapping[key] = value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="how many are sent (default: 1000)")
    parser.add_argument("--quick", action="store_true", help="each kind of request once")
    args = parser.parse_args(argv)
    # By name, because the types of tests are not checked.
    tiny_network, hostile, serving = (
        importlib.import_module(f"tests.support.{name}") for name in ("tiny_network", "hostile_requests", "serving")
    )
    tiny_network.install(_Setting)
    with tempfile.TemporaryDirectory() as folder:
        model_dir = serving.export_tiny_model(os.path.join(folder, "model"))
        limits = {"max_body_bytes": _MAX_BODY_BYTES, "body_deadline_sec": 10, "image_deadline_sec": 5}
        with serving.running_server(model_dir=(model_dir,), **limits) as server:
            cases = list(hostile.hostile_requests(_MAX_BODY_BYTES))
            say(f"{len(cases)} kinds of requests")
            wrong: Counter[str] = Counter()
            good = hostile.raw(hostile.post("/predict", hostile.photo()))
            left = len(cases) if args.quick else args.requests
            memory: list[float] = []
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
                while left:
                    for case, status in threads.map(lambda case: (case, case.send(server.port)), cases[:left]):
                        if status not in case.right:
                            wrong[f"{case.name}: {status}"] += 1
                    if good(server.port) != 200:
                        wrong["a good photo"] += 1
                    memory.append(memory_of(os.getpid()) / _MEBIBYTE)
                    left -= len(cases[:left])
    for name, count in wrong.items():
        say(f"WRONG {count} x {name}")
    rows = [limit("hostile requests with a wrong status", wrong.total(), 1, unit="", at_most=True)]
    if len(memory) > 1:
        name = "growth of memory after each kind came once"
        rows.append(limit(name, memory[-1] - memory[0], _MAX_GROWTH_MIB, unit="MiB", at_most=True))
    finish("serving_hostile", rows, requests=args.requests)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
