"""Images per second from JPEG files to TFRecords: the pipeline, the bound of the machine, and the peers.

    python -m benchmarks.pipeline [--photos DIR] [--choices openvino/bfloat16 ...] [--seconds S] [--rounds N] [--quick]

Ours is the transform and the runner of `pipelines.embed` on photos with distinct names, in the steady state
(`EmbedRun.steady_rate` says which part of a run that is). Each engine and precision runs for about `--seconds` a round.

The bound is the rate of a pipeline that never waits and has no cost of its own: the number of cores, divided by the
core-seconds for decoding and inference of one image, with the same engine and precision, in the same process. Decoding
is the CPU time of one thread that reads and decodes the same files one after the other. Inference is the number of
cores times the wall time for one image of the engine alone, which always has as many decoded batches as it accepts.
Bounds and runs are measured in turns (bound, ours, bound, ours, bound). Each run is compared with the mean of the
bounds before and after it, and the figure is the median of these ratios. So if the machine slows down, both slow down.

The peers are those of `benchmarks.peers`. They run before and after all of ours, and the mean of the two is used.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import engines
from benchmarks.decode import core_seconds_per_image
from benchmarks.embedding import embed, read_and_note
from benchmarks.photos import Lists, PhotoSet, add_photos_flag, find_photos, make_lists
from benchmarks.report import Figure, at_least, finish, noise_of, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EmbedOptions
from preprocess.engines.base import Engine
from preprocess.machine.cores import available_cores

_BOUND_TARGET = 0.95
# The targets by precision: against Keras' predict, and against Beam's RunInference.
_KERAS_TARGETS = {"float32": 1.25, "bfloat16": 6.0, "int8": 9.0}
_BEAM_TARGETS = {"bfloat16": 10.0}
_ENGINE_SHARE_OF_ROUND = 0.25
_DECODED_PHOTOS = 200
_DISTINCT_PIXELS = 64
_FEWEST_ROWS = 512


def _bound(engine: Engine, pixels: np.ndarray, photos: Sequence[str], seconds: float) -> dict[str, float]:
    decode = core_seconds_per_image(photos, pixels.shape[1])
    inference = available_cores() / engines.saturated_rate(engine, pixels, seconds)
    return {
        "images_per_sec": available_cores() / (decode + inference),
        "decode_sec": decode,
        "inference_sec": inference,
    }


def _say_bound(name: str, bound: dict[str, float]) -> None:
    say(
        f"{name}: bound {bound['images_per_sec']:.1f} images/s = {available_cores()} cores / "
        f"({1e3 * bound['decode_sec']:.2f} ms decoding + {1e3 * bound['inference_sec']:.2f} ms inference)"
    )


def measure_choice(
    choice: str,
    photo_set: PhotoSet,
    folder: pathlib.Path,
    *,
    seconds: float,
    rounds: int,
    fewest_rows: int,
    backbone: BackboneSpec = engines.BACKBONE,
) -> dict[str, Any] | None:
    """Bounds and runs of one engine and precision, in turns; None if it is not available here."""
    photos = [path for path, _ in photo_set.photos]
    engine = engines.load(choice, photos, backbone)
    if engine is None:
        return None
    name, size = engines.kept_name(choice, backbone), backbone.image.size
    pixels = engines.read_pixels(photos[:_DISTINCT_PIXELS], size)
    decoded = photos[:_DECODED_PHOTOS]
    bounds = [_bound(engine, pixels, decoded, seconds * _ENGINE_SHARE_OF_ROUND)]
    _say_bound(name, bounds[-1])
    rows = max(fewest_rows, int(seconds * bounds[0]["images_per_sec"]))
    lists = make_lists(photo_set, rows, folder / name.replace("/", "-"))
    options = EmbedOptions(
        unknown_labels="fail",
        load_engine=engines.KeptEngine(name),
        images=ImageSource(read=read_and_note, size=size),
    )
    rates, ratios = [], []
    for _ in range(rounds):
        run = embed(lists.list_path, lists.dict_path, str(lists.folder.parent / "out" / "all"), options)
        rates.append(run.steady_rate())
        bounds.append(_bound(engine, pixels, decoded, seconds * _ENGINE_SHARE_OF_ROUND))
        ratios.append(rates[-1] / statistics.mean(bound["images_per_sec"] for bound in bounds[-2:]))
        report = {key: value for key, value in run.report.items() if key.startswith("waited_for")}
        say(
            f"{name}: ours {rates[-1]:.1f} images/s in the steady state, {rows / run.seconds:.1f} over the whole run "
            f"of {rows} rows; {ratios[-1]:.3f} of the bound; {report}"
        )
        _say_bound(name, bounds[-1])
    return {
        "choice": choice,
        "ours": statistics.median(rates),
        "bound": statistics.mean(bound["images_per_sec"] for bound in bounds),
        "ratio": statistics.median(ratios),
        "noise": noise_of(ratios),
        "decode_sec": statistics.mean(bound["decode_sec"] for bound in bounds),
        "inference_sec": statistics.mean(bound["inference_sec"] for bound in bounds),
    }


def _peers(lists: Lists, beam_lists: Lists) -> dict[str, float]:
    from benchmarks import peers

    rates = {
        "keras": peers.keras_predict_rate(str(lists.folder)),
        "beam": peers.run_inference_rate(beam_lists.list_path, str(beam_lists.folder.parent / "out" / "all")),
    }
    say(f"keras.Model.predict {rates['keras']:.1f} images/s, Beam RunInference {rates['beam']:.1f} images/s")
    return rates


def figures(measured: Sequence[dict[str, Any]], peers: dict[str, float]) -> list[Figure]:
    """The figures of the table."""
    rows = []
    for one in measured:
        name, precision = f"pipeline, {one['choice']}", one["choice"].split("/")[1]
        rows.append(
            Figure(
                figure=f"{name}: of the bound",
                ours=f"{one['ours']:.4g} images/s",
                peer=f"{one['bound']:.4g} images/s",
                ratio=round(one["ratio"], 4),
                target=f">= {_BOUND_TARGET:g}",
                met=one["ratio"] >= _BOUND_TARGET,
                noise=one.get("noise"),
            )
        )
        for peer, what, targets in (
            ("keras", "keras.Model.predict", _KERAS_TARGETS),
            ("beam", "stock Beam RunInference", _BEAM_TARGETS),
        ):
            if peer in peers and precision in targets:
                rows.append(at_least(f"{name}: {what}", one["ours"], peers[peer], targets[precision], unit="images/s"))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--choices", nargs="+", default=engines.CHOICES, metavar="ENGINE/PRECISION")
    parser.add_argument("--seconds", type=float, default=20, help="of a run (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each choice (default: 3)")
    parser.add_argument("--rows", type=int, default=_FEWEST_ROWS, help="fewest rows of a run")
    parser.add_argument("--peer_images", type=int, default=192, help="a multiple of 32; 0 for no peers")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    args = parser.parse_args(argv)
    if args.quick:
        args.seconds, args.rounds, args.peer_images = min(args.seconds, 5), 1, min(args.peer_images, 64)
        args.rows = min(args.rows, 256)
    photo_set = find_photos(args.photos)
    say(f"{available_cores()} cores; {photo_set.describe()}")
    with tempfile.TemporaryDirectory(prefix="benchmark") as temporary:
        folder = pathlib.Path(temporary)
        peer_runs: list[dict[str, float]] = []

        def run_peers() -> None:
            if args.peer_images:
                lists = make_lists(photo_set, args.peer_images, folder / f"keras{len(peer_runs)}")
                beam_lists = make_lists(photo_set, max(args.peer_images // 2, 64), folder / f"beam{len(peer_runs)}")
                peer_runs.append(_peers(lists, beam_lists))

        run_peers()
        measured = []
        for choice in args.choices:
            one = measure_choice(
                choice, photo_set, folder, seconds=args.seconds, rounds=args.rounds, fewest_rows=args.rows
            )
            if one is not None:
                measured.append(one)
        run_peers()
    peers = {name: statistics.mean(run[name] for run in peer_runs) for name in (peer_runs[0] if peer_runs else {})}
    rows = figures(measured, peers)
    finish("pipeline", rows, photos=photo_set.name, cores=available_cores(), measured=measured, peers=peers)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
