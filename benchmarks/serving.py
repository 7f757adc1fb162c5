"""`hugs serve` against the same model as a SavedModel behind a plain TensorFlow server, on loopback.

    python -m benchmarks.serving [--photos DIR] [--backbone NAME] [--precisions auto,int8] [--quick]

The model has random weights: no speed depends on them. Clients ask again and again about photographs, each with one
connection, 1, 8 and 64 at once; the servers in turns, each in a process of its own. The clients run on the same cores,
which costs all the same an answer. The goal is for the processor time of an answer at 64 clients, when all cores are
busy: on a machine with other work, the rates of two servers also tell which of them the kernel favours.

The bound of a server is what cannot be left out: decoding the photo and running the network in full batches. Both are
measured in a process of their own, in processor time, before and after. "Of the bound" is that time divided by the
processor time of an answer, with all processes of the server. `benchmarks.serving_memory` looks at its memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.photos import ROOT, add_photos_flag, find_photos
from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program

_CLIENTS = (1, 8, 64)
_TARGET, _TARGET_CLIENTS = 3.0, 64


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos_flag(parser)
    parser.add_argument("--backbone", default="inception_v3", help="network of the model (default: inception_v3)")
    parser.add_argument("--precisions", default="auto,int8", help="of our servers, by commas (default: auto,int8)")
    parser.add_argument("--quick", action="store_true", help="2 s a measurement")
    args = parser.parse_args(argv)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = [pathlib.Path(path).read_bytes() for path, _ in photo_set.photos[:64]]
    seconds = 2.0 if args.quick else 10.0
    precisions = args.precisions.split(",")
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        model_dir = os.path.join(folder, "model")
        export_in_child(model_dir, args.backbone)
        listed = pathlib.Path(folder, "photos.jsonl")
        listed.write_text("".join(f"{json.dumps({'image_uri': path})}\n" for path, _ in photo_set.photos))
        flags = {
            name: ["--precision", name, *(["--calibrate_with", str(listed)] * (name == "int8"))] for name in precisions
        }
        bounds = {name: [_bound_ms(model_dir, flags[name], photo_set.photos)] for name in precisions}
        theirs = servers.enter_context(server(["benchmarks.tensorflow_server", model_dir]))
        ours = {
            name: servers.enter_context(
                server(["serving.serve", "--model_dir", model_dir, "--port", "0", *flags[name]])
            )
            for name in precisions
        }
        for port, _ in (theirs, *ours.values()):
            load(port, photos, clients=4, seconds=min(3.0, seconds))  # The first requests of each are slow.
        of_answers: dict[str, float] = {}
        for clients in _CLIENTS:
            peer, peer_ms = _loaded(theirs, photos, clients, seconds)
            for name in precisions:
                mine, of_answers[name] = _loaded(ours[name], photos, clients, seconds)
                what = f"{name}, {clients} {'client' if clients == 1 else 'clients'}"
                rows += _compared(what, clients, mine, peer, of_answers[name], peer_ms)
        for name in precisions:
            bounds[name].append(_bound_ms(model_dir, flags[name], photo_set.photos))
            rows.append(_of_bound(name, of_answers[name], bounds[name]))
    finish("serving", rows, backbone=args.backbone, seconds=seconds, bounds=bounds)
    return EXIT_OK


def _loaded(served: tuple[int, int], photos: Sequence[bytes], clients: int, seconds: float) -> tuple[Load, float]:
    """What clients of a server saw, and the milliseconds of processor time of an answer."""
    port, process = served
    before = processor_sec(process)
    seen = load(port, photos, clients=clients, seconds=seconds)
    return seen, 1000 * (processor_sec(process) - before) / max(1, len(seen.latencies))


def _bound_ms(model_dir: str, flags: Sequence[str], photos: Sequence[tuple[str, str]]) -> dict[str, float]:
    """The milliseconds of processor time for decoding a photo and for the network, in a process of its own."""
    words = json.dumps([["--model_dir", model_dir, *flags], [path for path, _ in photos[:64]]])
    code = f"from benchmarks.serving import measure_bound; measure_bound({words!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_bound(words: str) -> None:
    """Measures the bound and prints it as JSON. `words` is JSON: flags of the server, and paths of photos."""
    from preprocess.images.decode import decode_image
    from serving.loaded_model import load_model
    from serving.options import parse_options

    flags, paths = json.loads(words)
    options = parse_options(flags, {})
    model = load_model(options.model_dir[0], options)
    photos = [pathlib.Path(path).read_bytes() for path in paths]
    size, engine = model.info.image.size, model.engine
    decode_image(photos[0], size=size)
    started = time.process_time()
    pixels = np.stack([decode_image(photo, size=size) for photo in photos])
    decode_sec = time.process_time() - started
    batches = [pixels[start : start + engine.batch_size] for start in range(0, len(pixels), engine.batch_size)]
    engine.start(batches[0]).result()
    started = time.process_time()
    for running in [engine.start(batch) for batch in batches]:
        running.result()
    network_sec = time.process_time() - started
    say(json.dumps({"decode": 1000 * decode_sec / len(photos), "network": 1000 * network_sec / len(photos)}))


def _of_bound(name: str, answer_ms: float, bounds: Sequence[dict[str, float]]) -> Figure:
    parts = {part: sum(bound[part] for bound in bounds) / len(bounds) for part in bounds[0]}
    bound_ms = sum(parts.values())
    words = [f"{part} {milliseconds:.3g} ms" for part, milliseconds in parts.items()]
    return Figure(
        figure=f"{name}, {_TARGET_CLIENTS} clients: of the bound, {' + '.join(words)}",
        ours=f"{answer_ms:.4g} ms",
        peer=f"{bound_ms:.4g} ms",
        ratio=round(bound_ms / max(answer_ms, 1e-9), 4),
    )


def _compared(what: str, clients: int, mine: Load, peer: Load, my_ms: float, peer_ms: float) -> Iterator[Figure]:
    """The figures of one server against the peer."""
    yield _figure(f"{what}: answers", mine.rate, peer.rate, mine.rate / max(peer.rate, 1e-9), "/s")
    work = _figure(f"{what}: processor time of an answer", my_ms, peer_ms, peer_ms / max(my_ms, 1e-9), "ms")
    if clients == _TARGET_CLIENTS:
        assert work.ratio is not None
        work = dataclasses.replace(work, target=f">= {_TARGET:g}", met=work.ratio >= _TARGET)
    yield work
    for percent in (50, 99):
        ours, theirs = mine.percentile_ms(percent), peer.percentile_ms(percent)
        yield _figure(f"{what}: p{percent}", ours, theirs, theirs / ours, "ms")


def _figure(name: str, ours: float, peer: float, ratio: float, unit: str) -> Figure:
    return Figure(figure=name, ours=f"{ours:.4g} {unit}", peer=f"{peer:.4g} {unit}", ratio=round(ratio, 4))


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
        seed=0,
        mean_and_variance=None,
    )
    save_model(model_dir, backbone=network, head=head, labels=("hugs", "not-hugs"), identity=identity)


def export_in_child(model_dir: str, backbone: str) -> None:
    """In a process that ends, so that its memory and threads are gone."""
    code = f"from benchmarks.serving import export; export({model_dir!r}, {backbone!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def server(words: Sequence[str]) -> Iterator[tuple[int, int]]:
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


def load(
    port: int,
    bodies: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    at_most: int | None = None,
    path: str = "/predict",
) -> Load:
    """Asks from several clients at once, each again as soon as it has its answer.

    Args:
      port: of the server, on loopback.
      bodies: the bodies that are sent, in turn.
      clients: how many ask at once.
      seconds: how long they ask.
      at_most: how many requests they send, at most; None for no limit.
      path: the address that is asked.
    """
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    lock = threading.Lock()
    numbers = itertools.count()
    started = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        with contextlib.closing(connection):
            while time.perf_counter() - started < seconds:
                with lock:
                    number = next(numbers)
                if at_most is not None and number >= at_most:
                    return
                sent = time.perf_counter()
                connection.request("POST", path, bodies[number % len(bodies)])
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


def memory_of(process: int) -> int:
    """The resident memory of a process without its children, in bytes."""
    return memory_of_each(process)[0]


def memory_of_each(process: int) -> list[int]:
    """The resident memory of a process and of each of its children, in bytes."""
    folders = sorted((folder for folder, _ in _family(process)), key=lambda folder: int(folder.name))
    folders.sort(key=lambda folder: int(folder.name) != process)
    size = os.sysconf("SC_PAGE_SIZE")
    return [int((folder / "statm").read_text().split()[1]) * size for folder in folders]


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
