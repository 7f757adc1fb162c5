"""The memory of `hugs serve` under a mixed load: photos in all forms, bad files, questions, clients that go away.

    python -m benchmarks.serving_memory [--requests 20000] [--backbone NAME] [--photos DIR]

The load is a number of requests, not a time; 20,000 take ten minutes and more on two busy cores. 16 clients send them,
each over connections of its own, which some of them leave before their answer. The resident memory of each process of
the server, itself and its decoders, is noted at eleven times from the start to the end. The goal is that the second
half of the load adds next to nothing: what grows with requests would grow in it as in the first half.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import importlib
import json
import os
import pathlib
import random
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from benchmarks.serving import export_in_child, memory_of_each, server
from configs.errors import EXIT_OK
from configs.program import run_program

_CLIENTS = 16
_NOTES = 10
# Of these, the server gets as many as fill its queue, its caches and the arenas of its allocators.
_WARM_UP = 400
_REQUESTS_A_CONNECTION = 50
# A share of the requests is given up right after it was sent.
_GIVEN_UP = 0.02
_MAX_GROWTH_MIB = 16
_MEBIBYTE = 1024 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos_flag(parser)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="network (default: efficientnet_lite0)")
    parser.add_argument("--requests", type=int, default=20_000, help="how many are sent (default: 20000)")
    parser.add_argument("--quick", action="store_true", help="600 requests")
    args = parser.parse_args(argv)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = [pathlib.Path(path).read_bytes() for path, _ in photo_set.photos[:64]]
    count = 600 if args.quick else args.requests
    wrong: collections.Counter[str] = collections.Counter()
    notes: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        model_dir = os.path.join(folder, "model")
        export_in_child(model_dir, args.backbone)
        with server(["serving.serve", "--model_dir", model_dir, "--port", "0"]) as (port, process):
            # By name, because the types of tests are not checked.
            requests = importlib.import_module("tests.support.mixed_requests").mixed_requests(
                photos, _embedding_size(port)
            )
            say(f"{len(requests)} different requests")
            wrong += send_mixed(port, requests, _WARM_UP, seed=0)
            notes.append(_note(process))
            for part in range(_NOTES):
                wrong += send_mixed(port, requests, count // _NOTES, seed=1 + part)
                notes.append(_note(process))
                say(f"{count // _NOTES * (part + 1):>7,} requests: {_words(notes[-1])}")
    for name, number in wrong.items():
        say(f"WRONG {number} x {name}")
    totals = [sum(note.values()) for note in notes]
    middle = totals[_NOTES // 2]
    memory = f"{totals[0]:.4g}, {middle:.4g}, {totals[-1]:.4g} MiB"
    rows = [
        limit(f"mixed requests with a wrong status, of {count:,}", wrong.total(), 1, unit="", at_most=True),
        Figure(figure="memory at the start, in the middle, at the end", ours=memory),
        limit("memory added by the second half", totals[-1] - middle, _MAX_GROWTH_MIB, unit="MiB", at_most=True),
    ]
    finish("serving_memory", rows, requests=count, memory_mib=notes)
    return EXIT_OK


def send_mixed(
    port: int, requests: Sequence[Any], count: int, *, seed: int, clients: int = _CLIENTS
) -> collections.Counter[str]:
    """Sends a number of requests, drawn at random, from several clients at once.

    Args:
      port: of the server, on loopback.
      requests: of `tests.support.mixed_requests`.
      count: how many are sent.
      seed: of the draw.
      clients: how many send at once.

    Returns:
      How many answers had a wrong status, by the kind of the request and the status.
    """
    wrong: collections.Counter[str] = collections.Counter()
    shares = [count // clients + (client < count % clients) for client in range(clients)]

    def client(share: int, source: random.Random) -> None:
        while share > 0:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            with contextlib.closing(connection):
                for _ in range(min(share, _REQUESTS_A_CONNECTION)):
                    share -= 1
                    request = source.choice(requests)
                    if source.random() < _GIVEN_UP:
                        connection.request(request.method, request.path, request.body, {"Content-Type": request.kind})
                        break
                    status = request.send(connection)
                    if status != request.status:
                        wrong[f"{request.name.rpartition(' ')[0]}: {status}"] += 1

    threads = [
        threading.Thread(target=client, args=(share, random.Random(f"{seed} {number}")))
        for number, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def _embedding_size(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models/hugs/metadata")
        signatures = json.loads(connection.getresponse().read())["metadata"]["signature_def"]["signature_def"]
    return int(signatures["embeddings"]["inputs"]["embeddings"]["tensor_shape"]["dim"][-1]["size"])


def _note(process: int) -> dict[str, float]:
    """The memory of the server and of its decoders, in MiB."""
    own, *decoders = memory_of_each(process)
    named = {f"decoder {number}": size for number, size in enumerate(decoders)}
    return {name: round(size / _MEBIBYTE, 1) for name, size in {"server": own, **named}.items()}


def _words(note: dict[str, float]) -> str:
    return ", ".join(f"{name} {size:.1f} MiB" for name, size in note.items())


if __name__ == "__main__":
    run_program(main)
