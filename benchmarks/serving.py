"""`hugs serve` against the same model as a SavedModel behind a plain TensorFlow server, on loopback.

    python -m benchmarks.serving [--photos DIR] [--backbone NAME] [--quick]

The model has random weights: no speed depends on them. Clients ask again and again about photographs, each with one
connection, 1, 8 and 64 at once; both servers in turns, each in a process of its own. The clients run on the same cores,
which costs both the same an answer. Then one server of ours gets some thousands of requests, good and bad ones mixed,
and its memory, with that of its decoders, is compared before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.photos import ROOT, add_photos_flag, find_photos
from benchmarks.report import Figure, at_least, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program

_CLIENTS = (1, 8, 64)
_TARGET, _TARGET_CLIENTS = 3.0, 64
_MAX_GROWTH_MIB = 64
_MEBIBYTE = 1024 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos_flag(parser)
    parser.add_argument("--backbone", default="inception_v3", help="network of the model (default: inception_v3)")
    parser.add_argument("--quick", action="store_true", help="2 s a measurement, and few requests for the memory")
    args = parser.parse_args(argv)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = [pathlib.Path(path).read_bytes() for path, _ in photo_set.photos[:64]]
    seconds, requests = (2.0, 200) if args.quick else (10.0, 3000)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model_dir = os.path.join(folder, "model")
        _export_in_child(model_dir, args.backbone)
        with (
            _server(["benchmarks.tensorflow_server", model_dir]) as (theirs, peer_process),
            _server(["serving.serve", "--model_dir", model_dir, "--port", "0"]) as (ours, process),
        ):
            for port in (ours, theirs):
                load(port, photos, clients=4, seconds=min(3.0, seconds))  # The first requests of each are slow.
            for clients in _CLIENTS:
                before = processor_sec(process), processor_sec(peer_process)
                mine, peer = (load(port, photos, clients=clients, seconds=seconds) for port in (ours, theirs))
                used = processor_sec(process) - before[0], processor_sec(peer_process) - before[1]
                rows.append(_rate(clients, mine, peer))
                rows.append(_work(clients, mine, peer, *used))
                rows += [_latency(clients, mine, peer, percent) for percent in (50, 99)]
            rows.append(_memory(process, ours, photos, requests))
    finish("serving", rows, backbone=args.backbone, seconds=seconds)
    return EXIT_OK


def export(model_dir: str, backbone: str) -> None:
    """Writes a model of a network with random weights and a random head for two labels."""
    from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
    from trainer.export.saved_model import save_model
    from trainer.training.head import build_head

    network, identity = load_keras_backbone(BackboneSpec(architecture=backbone, weights="random"))
    head = build_head(
        embedding_size=identity.embedding_size,
        num_classes=2,
        hidden_units=512,
        dropout=0.5,
        seed=0,
        mean_and_variance=None,
    )
    save_model(model_dir, backbone=network, head=head, labels=("hugs", "not-hugs"), identity=identity)


def _export_in_child(model_dir: str, backbone: str) -> None:
    """In a process that ends, so that its memory and threads are gone."""
    code = f"from benchmarks.serving import export; export({model_dir!r}, {backbone!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _server(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A program that serves; gives its port and the number of its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(line.rstrip().rstrip("/").rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(60)


class Load:
    """What clients saw: the seconds of each answer, and the time in which they asked.

    Attributes:
      latencies: seconds, of the requests that were answered with 200.
      statuses: how many answers had a status.
      rate: good answers a second.
    """

    def __init__(self, latencies: Sequence[float], statuses: dict[int, int], seconds: float):
        self.latencies = latencies
        self.statuses = statuses
        self.rate = len(latencies) / seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency that this share of the answers did not exceed."""
        return 1000 * float(np.percentile(self.latencies, percent)) if self.latencies else float("inf")


def load(port: int, bodies: Sequence[bytes], *, clients: int, seconds: float, at_most: int | None = None) -> Load:
    """Asks from several clients at once, each again as soon as it has its answer.

    Args:
      port: of the server, on loopback.
      bodies: the bodies that are sent, in turn.
      clients: how many ask at once.
      seconds: how long they ask.
      at_most: how many requests they send, at most; None for no limit.
    """
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    lock = threading.Lock()
    numbers = itertools.count()
    started = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            while time.perf_counter() - started < seconds:
                with lock:
                    number = next(numbers)
                if at_most is not None and number >= at_most:
                    return
                sent = time.perf_counter()
                connection.request("POST", "/predict", bodies[number % len(bodies)])
                response = connection.getresponse()
                response.read()
                with lock:
                    statuses[response.status] = statuses.get(response.status, 0) + 1
                    if response.status == 200:
                        latencies.append(time.perf_counter() - sent)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(latencies, statuses, time.perf_counter() - started)


def _rate(clients: int, mine: Load, peer: Load) -> Figure:
    name = f"answers, {clients} {'client' if clients == 1 else 'clients'}"
    if clients == _TARGET_CLIENTS:
        return at_least(name, mine.rate, peer.rate, _TARGET, unit="/s")
    return Figure(
        figure=name,
        ours=f"{mine.rate:.4g} /s",
        peer=f"{peer.rate:.4g} /s",
        ratio=round(mine.rate / max(peer.rate, 1e-9), 4),
    )


def _work(clients: int, mine: Load, peer: Load, my_sec: float, peer_sec: float) -> Figure:
    """The processor time of an answer, which a busy machine changes less than the rate."""
    ours, theirs = 1000 * my_sec / max(1, len(mine.latencies)), 1000 * peer_sec / max(1, len(peer.latencies))
    return Figure(
        figure=f"processor time an answer, {clients} {'client' if clients == 1 else 'clients'}",
        ours=f"{ours:.4g} ms",
        peer=f"{theirs:.4g} ms",
        ratio=round(theirs / max(ours, 1e-9), 4),
    )


def _latency(clients: int, mine: Load, peer: Load, percent: int) -> Figure:
    ours, theirs = mine.percentile_ms(percent), peer.percentile_ms(percent)
    return Figure(
        figure=f"p{percent}, {clients} {'client' if clients == 1 else 'clients'}",
        ours=f"{ours:.4g} ms",
        peer=f"{theirs:.4g} ms",
        ratio=round(theirs / ours, 4),
    )


def _memory(process: int, port: int, photos: Sequence[bytes], requests: int) -> Figure:
    bad = [b"", b"<svg/>", photos[0][:500], bytes(100_000)]
    mixed: list[Any] = [body for pair in zip(photos, itertools.cycle(bad), strict=False) for body in pair]
    load(port, mixed, clients=16, seconds=120, at_most=requests // 3)
    before = memory_of(process)
    load(port, mixed, clients=16, seconds=300, at_most=requests)
    growth = (memory_of(process) - before) / _MEBIBYTE
    return limit(f"growth of memory in {requests} requests", growth, _MAX_GROWTH_MIB, unit="MiB", at_most=True)


def memory_of(process: int) -> int:
    """The resident memory of a process and its children, in bytes."""
    pages = sum(int((folder / "statm").read_text().split()[1]) for folder, _ in _family(process))
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_sec(process: int) -> float:
    """The processor time that a process and its children have used."""
    return sum(int(fields[11]) + int(fields[12]) for _, fields in _family(process)) / os.sysconf("SC_CLK_TCK")


def _family(process: int) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """A process and its children: their folders in /proc, and the fields of `stat` from the state on."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if process in (int(fields[1]), int(folder.name)):
                yield folder, fields


if __name__ == "__main__":
    run_program(main)
