"""What it costs to embed the same photos with several backbones in one run, against a run of each.

    python -m benchmarks.several_backbones [--photos DIR] [--backbones NAME,NAME] [--count N] [--rounds N] [--quick]

Photos are embedded as in the pipeline (blocks, loader, engines and writers, without Beam): with all backbones together,
and with each alone. The records must be the same bytes. Together they may take the inference of each, plus one read and
one decode of each photo. These are timed alone, in turns with the whole: in core-seconds, which other programs on the
machine change little, and by the clock. Weights are random, which takes the same time.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, say
from benchmarks.views import core_sec
from configs.errors import EXIT_OK
from configs.program import run_program
from configs.several_backbones import folder_names, split_backbones
from preprocess.backbones.backbone import BackboneSpec, complete_spec
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.base import Engine
from preprocess.engines.fidelity import embed_all
from preprocess.engines.select import EngineSpec
from preprocess.images.decode import decode_image
from preprocess.jobs.block_embedder import BlockEmbedder, Loader
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.joint_embedder import JointEmbedder
from preprocess.jobs.resume import NOTHING_KNOWN
from preprocess.lists.blocks import RowBlock
from preprocess.lists.rows import Row
from preprocess.storage.base import LocalStorage

_BACKBONES = "mobilenet_0.25_128,mobilenet_1.0_224,efficientnet_lite0"
# The share of the bound that the whole must reach.
_TARGET = 0.97


def embed(paths: Sequence[str], engines: dict[str, Engine], sizes: Sequence[int], folder: str) -> dict[str, bytes]:
    """Embeds photos as the pipeline does.

    Args:
      paths: of the photos.
      engines: of the backbones, by name.
      sizes: the side of the square of each.
      folder: for the records.

    Returns:
      The shard of each backbone.
    """
    rows = tuple(Row(line=line, uri=path, labels=(), label_ids=()) for line, path in enumerate(paths, start=1))
    names = tuple(engines)
    first, *others = dict.fromkeys(sizes)
    images = ImageSource(size=first, further_sizes=tuple(others))

    def make_embedder(number: int, loader: Loader) -> BlockEmbedder:
        engine = engines[names[number]]
        return BlockEmbedder(
            loader=loader,
            engine=engine,
            open_writer=lambda block: BlockWriter(
                block,
                storage=LocalStorage(),
                parts_dir=os.path.join(folder, names[number]),
                compression="none",
                engine=engine,
            ),
            batch_size=engine.batch_size,
            on_rows_done=lambda rows: None,
        )

    embedder = JointEmbedder(
        loader=images.make_loader(engines=list(engines.values())),
        layout=images.layout,
        sizes=sizes,
        make_embedder=make_embedder,
    )
    block = RowBlock(list_index=0, list_path=os.path.join(folder, "list.csv"), block_index=0, rows=rows)
    embedder.submit(block, [NOTHING_KNOWN] * len(names))
    for result in embedder.complete_next():
        assert result.embedded == len(paths), result.failed
    shards = {name: list(pathlib.Path(folder, name).glob("*.tfrecord")) for name in names}
    return {name: path.read_bytes() for name, (path,) in shards.items()}


def cost(paths: Sequence[str], engines: dict[str, Engine], sizes: Sequence[int], *, rounds: int) -> list[Figure]:
    """The time of all backbones together against each alone, and against the inference of each and one decode."""
    pixels = {
        size: np.stack([decode_image(pathlib.Path(path).read_bytes(), size=size) for path in paths])
        for size in set(sizes)
    }
    size_of = dict(zip(engines, sizes, strict=True))

    def run(*names: str) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return embed(paths, {name: engines[name] for name in names}, [size_of[name] for name in names], folder)

    alone = {name: run(name)[name] for name in engines}
    differing = [name for name, shard in run(*engines).items() if shard != alone[name]]
    parts: dict[str, Callable[[], object]] = {"together": lambda: run(*engines), "loading": lambda: _load(paths, sizes)}
    for name in engines:
        parts[f"{name} alone"] = lambda name=name: run(name)  # type: ignore[misc]
        parts[f"{name} inference"] = lambda name=name: embed_all(engines[name], pixels[size_of[name]])  # type: ignore[misc]
    wall: dict[str, list[float]] = {name: [] for name in parts}
    core: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds):
        for name, part in parts.items():
            started, core_started = time.perf_counter(), core_sec()
            part()
            wall[name].append(1e3 * (time.perf_counter() - started) / len(paths))
            core[name].append(1e3 * (core_sec() - core_started) / len(paths))
        took = ", ".join(f"{name} {wall[name][-1]:.2f} ({core[name][-1]:.2f})" for name in parts)
        say(f"round {number}, ms (core-ms) a photo: {took}")
    what = f"{len(paths)} photos with {', '.join(engines)}"
    rows = [
        Figure(
            figure=f"{what}: sets whose records differ from those of a run alone",
            ours=f"{len(differing)} {' '.join(differing)}".strip(),
            target="0",
            met=not differing,
        )
    ]
    for unit, taken in (("core-ms", core), ("ms", wall)):
        # The best of the rounds, because other programs may disturb a round.
        of = {part: min(taken[part]) for part in parts}
        of_alone = sum(of[f"{name} alone"] for name in engines)
        bound = sum(of[f"{name} inference"] for name in engines) + of["loading"]
        rows.append(
            Figure(
                figure=f"{what} together, against the sum of each alone",
                ours=f"{of['together']:.2f} {unit} a photo",
                peer=f"{of_alone:.2f} {unit} a photo",
                ratio=round(of_alone / of["together"], 3),
                target="> 1",
                met=of["together"] < of_alone,
            )
        )
        rows.append(
            Figure(
                figure=f"{what} together, against the inference of each + one read and decode "
                f"({of['loading']:.2f} {unit})",
                ours=f"{of['together']:.2f} {unit} a photo",
                peer=f"{bound:.2f} {unit} a photo",
                ratio=round(bound / of["together"], 3),
                target=f">= {_TARGET:g}",
                met=bound / of["together"] >= _TARGET,
            )
        )
    return rows


def _load(paths: Sequence[str], sizes: Sequence[int]) -> None:
    first, *others = dict.fromkeys(sizes)
    loader = ImageSource(size=first, further_sizes=tuple(others)).make_loader()
    loader.add(paths)
    for _ in paths:
        loader.next()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.several_backbones", description=(__doc__ or "").split("\n")[0]
    )
    add_photos_flag(parser)
    parser.add_argument("--backbones", default=_BACKBONES, metavar="NAME,NAME", help=f"default: {_BACKBONES}")
    parser.add_argument("--precision", default="float32", help="of the engines (default: float32)")
    parser.add_argument("--count", type=int, default=400, help="photos that are timed (default: 400)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is timed (default: 5)")
    parser.add_argument("--quick", action="store_true", help="64 photos, 2 rounds")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.rounds = min(args.count, 64), 2
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    paths = [path for path, _ in photo_set.photos[: args.count]]
    backbones = split_backbones(args.backbones)
    specs = [complete_spec(BackboneSpec(architecture=backbone, weights="random")) for backbone in backbones]
    engines = {}
    for name, spec in zip(folder_names(backbones), specs, strict=True):
        engines[name] = EngineLoader(backbone=spec, engine=EngineSpec(precision=args.precision))()
        say(f"{name}: {engines[name].info.engine}, {engines[name].info.why}")
    rows = cost(paths, engines, [spec.image.size for spec in specs], rounds=args.rounds)
    finish("several_backbones", rows, photos=photo_set.name, backbones=args.backbones)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
