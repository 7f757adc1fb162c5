"""Images per second on a GPU: the device alone, with pixels sent to it, and from JPEG files to records.

    python -m benchmarks.gpu [--photos DIR] [--precisions float16 bfloat16] [--seconds S] [--rows N] [--torch]

Needs a GPU and `pip install '.[gpu]'`. It needs no Beam: blocks of rows go straight to the `BlockEmbedder`, as on a
Dataflow worker, with files on the local disk.

The device alone is a program that finds its pixels on the device, one full batch after another. The bound of the
pipeline is the lower of that and of decoding on all cores: one process for each core, which does nothing but read and
decode the same files. Fidelity is the centred cosine of each photograph to float32 on the same device.
`--torch` measures the Inception v3 of torchvision beside ours, with random weights, in float16 and channels last, eager
and compiled, pixels on the device.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from benchmarks.photos import PhotoSet, add_photos_flag, find_photos, make_lists
from benchmarks.report import Figure, at_least, finish, limit, say
from benchmarks.steady_state import steady_rate
from configs.errors import EXIT_OK, InputError
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines.base import Engine
from preprocess.engines.fidelity import centred_cosines, embed_all
from preprocess.engines.jax_engine import JaxEngine
from preprocess.engines.jax_import import find_gpu
from preprocess.images.decode import IMAGE_SIZE, decode_image
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import DEFAULT_DEADLINE_SEC, ImageLoader
from preprocess.images.parallel_loader import ParallelLoader, is_worthwhile
from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES, read_image_bytes
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.lists.blocks import RowBlock, into_blocks
from preprocess.lists.rows import Row
from preprocess.machine.cores import available_cores
from preprocess.storage.base import LocalStorage

_BACKBONE = BackboneSpec(weights="random", seed=0)
_BOUND_TARGET = 0.9
# What `select` asks of a lower precision.
_FIDELITY_TARGET = 0.99
_ROWS_PER_BLOCK = 1024
_BATCHES_AHEAD = 4
_COMPARED_PHOTOS = 200
_DISTINCT_PIXELS = 64


def _read(location: str) -> bytes:
    return read_image_bytes(location, read_remote=LocalStorage().read)


def _timed(turn: Any, images: int, seconds: float) -> float:
    """Images per second of a function that is called again and again, after one call that is not counted."""
    turn()
    turns, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not turns:
        turn()
        turns += 1
    return turns * images / elapsed if elapsed else 0.0


def device_rate(engine: JaxEngine, pixels: np.ndarray, seconds: float, *, in_flight: int = 4) -> float:
    """Images per second of the program alone: its pixels are on the device."""
    sent = engine.send(np.ascontiguousarray(np.resize(pixels, (engine.batch_size, *pixels.shape[1:]))))

    def turn() -> None:
        results = [engine.compute(sent) for _ in range(in_flight)]
        results[-1].block_until_ready()

    return _timed(turn, in_flight * len(sent), seconds)


def sent_rate(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Images per second of an engine that always has `max_pending` batches in the memory of this machine to work on."""
    batches = [
        np.ascontiguousarray(np.resize(np.roll(pixels, shift, axis=0), (engine.batch_size, *pixels.shape[1:])))
        for shift in range(engine.max_pending)
    ]
    pending: collections.deque[Any] = collections.deque(map(engine.start, batches))
    numbers = itertools.cycle(range(len(batches)))

    def turn() -> None:
        pending.popleft().result()
        pending.append(engine.start(batches[next(numbers)]))

    rate = _timed(turn, engine.batch_size, seconds)
    for future in pending:
        future.result()
    return rate


def _decode_for(photos: Sequence[str], ready: Any, start: Any, counts: Any, seconds: float) -> None:
    for path in photos[:5]:
        decode_image(_read(path))
    ready.release()
    start.wait()
    count, end = 0, time.perf_counter() + seconds
    for path in itertools.cycle(photos):
        if time.perf_counter() >= end:
            break
        decode_image(_read(path))
        count += 1
    counts.put(count)


def decode_rate(photos: Sequence[str], seconds: float) -> float:
    """Photographs per second that all cores read and decode, in processes that do nothing else."""
    context = multiprocessing.get_context("spawn")
    ready, start, counts = context.Semaphore(0), context.Event(), context.Queue()
    arguments = (list(photos), ready, start, counts, seconds)
    processes = [context.Process(target=_decode_for, args=arguments) for _ in range(available_cores())]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    start.set()
    total = sum(counts.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


class _NotingLoader:
    """A loader that notes when it was last given the location of an image."""

    def __init__(self, loader: ImageLoader | ParallelLoader):
        self._loader = loader
        self.last_read = 0.0
        self.next = loader.next

    def add(self, locations: Iterable[str]) -> None:
        self._loader.add(map(self._note, locations))

    def _note(self, location: str) -> str:
        self.last_read = time.perf_counter()
        return location


def make_loader(batch_size: int) -> ImageLoader | ParallelLoader:
    """Reads and decodes as the pipeline does for a GPU (`preprocess.beam.image_source`)."""
    decode, max_ahead = IsolatedDecoder(), max(128, _BATCHES_AHEAD * batch_size)
    here = ImageLoader(read=_read, decode=decode, max_ahead=max_ahead)
    if not is_worthwhile():
        return here
    return ParallelLoader(
        here=here,
        decode=decode,
        max_bytes=DEFAULT_MAX_IMAGE_BYTES,
        deadline_sec=DEFAULT_DEADLINE_SEC,
        max_ahead=max_ahead,
        image_bytes=IMAGE_SIZE * IMAGE_SIZE * 3,
    )


def pipeline_rate(engine: Engine, paths: Sequence[str], folder: str) -> dict[str, float]:
    """Images per second from files to records in the steady state, and what the run waited for."""
    started = time.perf_counter()
    notes: list[tuple[float, int]] = []

    def note(rows: int) -> None:
        notes.append((time.perf_counter() - started, rows + (notes[-1][1] if notes else 0)))

    loader = _NotingLoader(make_loader(engine.batch_size))
    storage = LocalStorage()

    def open_writer(block: RowBlock) -> BlockWriter:
        return BlockWriter(block, storage=storage, parts_dir=folder, compression="none", engine=engine)

    embedder = BlockEmbedder(
        loader=cast(Any, loader),
        engine=engine,
        open_writer=open_writer,
        batch_size=engine.batch_size,
        on_rows_done=note,
    )
    rows = (Row(path, (), (), number) for number, path in enumerate(paths, start=1))
    results = []
    for block in into_blocks(rows, list_index=0, list_path="/all.csv", rows_per_block=_ROWS_PER_BLOCK):
        embedder.submit(block)
        while embedder.submitted > 1:
            results.append(embedder.complete_next())
    while embedder.submitted:
        results.append(embedder.complete_next())
    assert sum(result.sources.get("computed", 0) for result in results) == len(paths), results
    return {
        "rate": steady_rate(notes, rows=len(paths), last_read=loader.last_read - started),
        "whole": len(paths) / notes[-1][0],
        "waited_for_images_sec": sum(result.waited_for_images_sec for result in results),
        "waited_for_engine_sec": sum(result.waited_for_engine_sec for result in results),
    }


def torch_rates(batch_size: int, seconds: float) -> dict[str, float]:
    """Images per second of torchvision's Inception v3 in float16, eager and compiled; empty without torch."""
    try:
        import torch
        import torchvision
    except ImportError as error:
        say(f"torch: left out ({error})")
        return {}
    model = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
    model.fc = torch.nn.Identity()
    model = model.eval().half().cuda().to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (batch_size, 3, 299, 299), dtype=torch.uint8, device="cuda")

    def embed(images: Any) -> Any:
        return model((images.half() / 127.5 - 1).contiguous(memory_format=torch.channels_last)).float()

    rates = {}
    with torch.inference_mode():
        for name, function in (("eager", embed), ("compiled", torch.compile(embed))):

            def turn(function: Any = function) -> None:
                for _ in range(4):
                    function(pixels)
                torch.cuda.synchronize()

            turn()
            rates[name] = _timed(turn, 4 * batch_size, seconds)
            say(f"torchvision in float16, {name}: {rates[name]:.0f} images/s, pixels on the device")
    return rates


def measure(
    engine: JaxEngine, reference: np.ndarray, pixels: np.ndarray, paths: Sequence[str], *, seconds: float, rounds: int
) -> dict[str, Any]:
    """All rates of one engine, with the bound before and after each run of the pipeline."""
    name = engine.info.precision
    cosines = centred_cosines(embed_all(engine, pixels), reference)
    measured: dict[str, Any] = {
        "precision": name,
        "worst": float(cosines.min()),
        "median": float(np.median(cosines)),
        "device": device_rate(engine, pixels[:_DISTINCT_PIXELS], seconds),
        "sent": sent_rate(engine, pixels[:_DISTINCT_PIXELS], seconds),
    }
    say(
        f"{name}: batch {engine.batch_size}, device alone {measured['device']:.0f} images/s, pixels sent "
        f"{measured['sent']:.0f}; cosine to float32 {measured['median']:.5f} in the median, {measured['worst']:.5f} at "
        "worst"
    )
    decoded = [decode_rate(paths[:_COMPARED_PHOTOS], seconds)]
    rates, ratios = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
            run = pipeline_rate(engine, paths, folder)
        decoded.append(decode_rate(paths[:_COMPARED_PHOTOS], seconds))
        bound = min(statistics.mean(decoded[-2:]), measured["device"])
        rates.append(run["rate"])
        ratios.append(run["rate"] / bound)
        say(
            f"{name}: from files to records {run['rate']:.0f} images/s in the steady state, {run['whole']:.0f} over "
            f"the whole run of {len(paths)} rows; {ratios[-1]:.3f} of the bound {bound:.0f} (decoding alone "
            f"{statistics.mean(decoded[-2:]):.0f}); waited {run['waited_for_images_sec']:.1f} s for images, "
            f"{run['waited_for_engine_sec']:.1f} s for the engine"
        )
    return {
        **measured,
        "decode": statistics.mean(decoded),
        "pipeline": statistics.median(rates),
        "ratio": statistics.median(ratios),
    }


def figures(measured: Sequence[dict[str, Any]]) -> list[Figure]:
    """The figures of the table."""
    rows = []
    for one in measured:
        name = f"GPU, {one['precision']}"
        bound = one["pipeline"] / one["ratio"]
        rows += [
            at_least(f"{name}: of the bound", one["pipeline"], bound, _BOUND_TARGET, unit="images/s"),
            limit(f"{name}: worst cosine to float32", one["worst"], _FIDELITY_TARGET, unit=""),
        ]
    return rows


def run(
    make_engine: Any, photo_set: PhotoSet, *, precisions: Sequence[str], seconds: float, rounds: int, rows: int
) -> list[dict[str, Any]]:
    """Measures each precision with engines that `make_engine` gives by their precision."""
    photos = [path for path, _ in photo_set.photos]
    pixels = np.stack([decode_image(_read(path)) for path in photos[:_COMPARED_PHOTOS]])
    reference = embed_all(make_engine("float32"), pixels)
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        paths = [path for path, _ in make_lists(photo_set, rows, pathlib.Path(folder)).rows]
        return [
            measure(make_engine(precision), reference, pixels, paths, seconds=seconds, rounds=rounds)
            for precision in precisions
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: there is no GPU that JAX can use.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--precisions", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=5, help="of a measurement of one part (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of the pipeline (default: 3)")
    parser.add_argument("--rows", type=int, default=20480, help="of a run of the pipeline (default: 20480)")
    parser.add_argument("--torch", action="store_true", help="measure torchvision's network beside ours")
    args = parser.parse_args(argv)
    gpu = find_gpu()
    if gpu is None:
        raise InputError("benchmarks.gpu needs a GPU and JAX for it: pip install '.[gpu]'.")
    photo_set = find_photos(args.photos)
    say(f"{gpu.device_kind}, {available_cores()} cores; {photo_set.describe()}")
    from preprocess.engines.converted_networks import load_network, load_operations
    from preprocess.engines.model_cache import ModelCache

    cache = ModelCache()
    network = load_network(_BACKBONE, cache)
    operations = load_operations(network, cache)

    def make_engine(precision: str) -> JaxEngine:
        return JaxEngine(operations, network.identity, precision=precision)

    measured = run(
        make_engine,
        photo_set,
        precisions=args.precisions,
        seconds=args.seconds,
        rounds=args.rounds,
        rows=args.rows,
    )
    peers = torch_rates(256, args.seconds) if args.torch else {}
    finish("gpu", figures(measured), device=gpu.device_kind, measured=measured, torch=peers)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
