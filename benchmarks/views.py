"""Views of an image: their pixels and embeddings against a NumPy copy of retrain.py's formulas, and what they cost.

    python -m benchmarks.views [--photos DIR] [--backbone NAME] [--count N] [--rounds N] [--quick]

- The pixels of views against `benchmarks.numpy_views`, which resizes in float64 and draws from the same hash.
- The embeddings against a Keras model that gets the float pixels of that copy. Pixels brighter than 255 are not
  clipped; beside it stands how far the embeddings would be if they were.
- JPEGs that are decoded at a reduced scale: views of the reduced picture against views of the whole one.
- The cost: photos are embedded with 4 views (blocks, loader, engine and writer as in the pipeline, without Beam). It
  may take 4.1 times the inference of one view, plus reading and decoding each photo once. Both are timed alone, in
  turns with the whole: in core-seconds, which other programs on the machine change little, and by the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks import numpy_views
from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec, complete_spec, load_keras_backbone
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.base import Engine
from preprocess.engines.fidelity import centred_cosines, embed_all
from preprocess.engines.select import EngineSpec
from preprocess.images.decode import decode_image, decode_views
from preprocess.images.definition import ImageDefinition
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_writer import BlockWriter
from preprocess.lists.blocks import RowBlock
from preprocess.lists.rows import Row
from preprocess.records.views import Views
from preprocess.storage.base import LocalStorage

VIEWS = Views(count=4, flip_left_right=True, random_crop=10.0, random_scale=10.0, random_brightness=20.0)
_MOST_COST = 4.1
_LARGE_SIDE = 1600


def pixels_against_numpy(paths: Sequence[str], *, size: int) -> list[Figure]:
    """How far the pixels of views are from those of the formulas, in grey levels."""
    largest, means = 0.0, []
    for path in paths:
        data, whole = _read(path)
        for view, found in enumerate(_views(data, VIEWS, size), start=1):
            expected, _ = numpy_views.view_of(whole, data, view, VIEWS, size=size)
            difference = np.abs(found - expected)
            largest = max(largest, float(difference.max()))
            means.append(float(difference.mean()))
    what = f"{len(means)} views of {len(paths)} photos against NumPy"
    return [
        limit(f"pixels of {what}: mean difference", statistics.mean(means), 0.5, unit="grey levels", at_most=True),
        limit(f"pixels of {what}: largest difference", largest, 3, unit="grey levels", at_most=True),
    ]


def embeddings_against_numpy(paths: Sequence[str], spec: BackboneSpec, engine: Engine) -> list[Figure]:
    """How far the embeddings of brightened views are from those of a Keras model on the pixels of the formulas."""
    size = spec.image.size
    model, identity = load_keras_backbone(spec)
    scaling = ImageDefinition.named(identity.image_definition).scaling
    pixels, factors, exact, clipped = [], [], [], []
    for path in paths:
        data, whole = _read(path)
        for view, found in enumerate(_views(data, VIEWS, size), start=1):
            expected, factor = numpy_views.view_of(whole, data, view, VIEWS, size=size)
            pixels.append(found)
            factors.append(factor)
            exact.append(expected * factor)
            clipped.append(np.clip(expected * factor, 0, 255))
    ours = np.concatenate(
        [
            engine.start(np.stack(pixels[at : at + 8]), np.array(factors[at : at + 8], np.float32)).result()
            for at in range(0, len(pixels), 8)
        ]
    )
    reference, if_clipped = (_keras(model, scaling, images) for images in (exact, clipped))
    share = float(np.mean([(image > 255).any() for image in exact]))
    cosine, of_clipped = (float(centred_cosines(one, reference).min()) for one in (ours, if_clipped))
    say(f"{share:.0%} of the views have pixels above 255; clipped, the worst cosine would be {of_clipped:.5f}")
    name = f"embeddings of {len(pixels)} views, {engine.info.engine} {engine.info.precision}, against Keras on NumPy's"
    return [limit(f"{name} pixels: smallest cosine (clipped: {of_clipped:.4f})", cosine, 0.999, unit="")]


def reduced_jpegs(paths: Sequence[str], *, size: int) -> list[Figure]:
    """What it costs that a large JPEG is decoded once, at the scale of view 0."""
    rows = []
    for views in (VIEWS, Views(count=4, random_crop=40.0, random_scale=40.0)):
        errors = []
        for path in paths:
            buffer = io.BytesIO()
            image = Image.open(path).convert("RGB")
            image.resize((_LARGE_SIDE, _LARGE_SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            data = buffer.getvalue()
            whole = np.array(Image.open(io.BytesIO(data)))
            for view, found in enumerate(_views(data, views, size), start=1):
                expected, _ = numpy_views.view_of(whole, data, view, views, size=size)
                errors.append(float(np.mean((found - expected) ** 2)))
        decibel = 10 * np.log10(255**2 / np.mean(errors))
        percent = 100 * (views.largest_side - 1)
        rows.append(
            Figure(
                figure=f"views up to {percent:.0f} % larger, of JPEGs of {_LARGE_SIDE} x {_LARGE_SIDE}, decoded "
                "at a reduced scale, against the whole JPEG",
                ours=f"{decibel:.1f} dB PSNR",
            )
        )
    return rows


def cost(paths: Sequence[str], spec: BackboneSpec, engine: Engine, *, rounds: int) -> list[Figure]:
    """The time of all 4 views against inference and decoding alone."""
    size = spec.image.size
    plain = np.stack([decode_image(_read(path)[0], size=size) for path in paths])
    _embed_photos(paths, engine, size, VIEWS)  # The engine prepares what it needs for a brightness.
    parts = {
        "whole": lambda: _embed_photos(paths, engine, size, VIEWS),
        "one": lambda: _embed_photos(paths, engine, size, None),
        "inference": lambda: embed_all(engine, plain),
        "loading": lambda: _load(paths, size),
    }
    wall: dict[str, list[float]] = {name: [] for name in parts}
    core: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds):
        for name, run in parts.items():
            started, cpu_started = time.perf_counter(), core_sec()
            run()
            wall[name].append(1e3 * (time.perf_counter() - started) / len(paths))
            core[name].append(1e3 * (core_sec() - cpu_started) / len(paths))
        took = ", ".join(f"{name} {wall[name][-1]:.1f} ({core[name][-1]:.1f})" for name in parts)
        say(f"round {number}, ms (core-ms) a photo: {took}")
    name = f"{spec.name}, {engine.info.engine} {engine.info.precision}: {len(paths)} photos with {VIEWS.count} views"
    rows = []
    for unit, taken in (("core-ms", core), ("ms", wall)):
        # The best of the rounds, because other programs may disturb a round.
        of = {part: min(taken[part]) for part in parts}
        bound = _MOST_COST * of["inference"] + of["loading"]
        views = (of["whole"] - of["loading"]) / of["inference"]
        rows.append(
            Figure(
                figure=f"{name}, against {_MOST_COST:g} x inference of one view + one decode "
                f"(without one decode {views:.2f} x inference; with one view {of['one']:.1f} {unit} a photo)",
                ours=f"{of['whole']:.1f} {unit} a photo",
                peer=f"{bound:.1f} {unit} a photo",
                ratio=round(bound / of["whole"], 3),
                target=">= 1",
                met=of["whole"] <= bound,
            )
        )
    return rows


def core_sec() -> float:
    """Seconds of processor time of this process and of its decoders. Other programs change it less than a clock."""
    total = time.process_time()
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as stream:
            fields = stream.read().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _read(path: str) -> tuple[bytes, np.ndarray]:
    with open(path, "rb") as stream:
        data = stream.read()
    return data, np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def _views(data: bytes, views: Views, size: int) -> list[np.ndarray]:
    return decode_views(data, views.distortions(hashlib.sha256(data).digest(), size=size), size=size)[1:]


def _keras(model: object, scaling: str, images: Sequence[np.ndarray]) -> np.ndarray:
    from preprocess.images.decode_graph import scale_pixels

    parts = [np.stack(images[at : at + 8]).astype(np.float32) for at in range(0, len(images), 8)]
    return np.concatenate([model(scale_pixels(part, scaling), training=False).numpy() for part in parts])  # type: ignore[operator]


def _load(paths: Sequence[str], size: int) -> None:
    loader = ImageSource(size=size).make_loader()
    loader.add(paths)
    for _ in paths:
        loader.next()


def _embed_photos(paths: Sequence[str], engine: Engine, size: int, views: Views | None) -> None:
    """Embeds photos as the pipeline does, into files that are deleted."""
    rows = tuple(Row(line=line, uri=path, labels=(), label_ids=()) for line, path in enumerate(paths, start=1))
    with tempfile.TemporaryDirectory() as folder:
        embedder = BlockEmbedder(
            loader=ImageSource(size=size, views=views).make_loader(engines=[engine]),
            engine=engine,
            open_writer=lambda block: BlockWriter(
                block, storage=LocalStorage(), parts_dir=folder, compression="none", engine=engine
            ),
            batch_size=engine.batch_size,
            on_rows_done=lambda rows: None,
            views=views,
        )
        embedder.submit(RowBlock(list_index=0, list_path=os.path.join(folder, "list.csv"), block_index=0, rows=rows))
        result = embedder.complete_next()
        assert result.embedded == len(paths), result.failed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--backbone", default="inception_v3", metavar="NAME", help="with random weights")
    parser.add_argument("--precision", default="float32", help="of the engine (default: float32)")
    parser.add_argument("--count", type=int, default=200, help="photos that are timed (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is timed (default: 5)")
    parser.add_argument("--quick", action="store_true", help="32 photos, 2 rounds")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.rounds = min(args.count, 32), 2
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    paths = [path for path, _ in photo_set.photos[: args.count]]
    spec = complete_spec(BackboneSpec(architecture=args.backbone, weights="random"))
    engine = EngineLoader(backbone=spec, engine=EngineSpec(precision=args.precision))()
    say(f"{args.backbone}: {engine.info.engine}, {engine.info.why}")
    rows = pixels_against_numpy(paths[:16], size=spec.image.size)
    rows += reduced_jpegs(paths[:8], size=spec.image.size)
    rows += embeddings_against_numpy(paths[:8], spec, engine)
    rows += cost(paths, spec, engine, rounds=args.rounds)
    finish("views", rows, photos=photo_set.name, backbone=args.backbone)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
