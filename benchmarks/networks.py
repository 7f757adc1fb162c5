"""Images per second of several networks: the pipeline, the bound of the machine, and Keras with the same network.

    python -m benchmarks.networks [--networks NAME ...] [--choices openvino/bfloat16 ...] [--seconds S] [--quick]

For each network, ours and the bound are what `benchmarks.pipeline` measures, from JPEG files to TFRecords, in turns.
The peer is `keras.Model.predict` of the same network in float32 on `image_dataset_from_directory`. It runs before and
after ours, and the mean of the two is used. All networks have random weights, on which their speed does not depend.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import peers
from benchmarks.photos import PhotoSet, add_photos_flag, find_photos, make_lists
from benchmarks.pipeline import measure_choice
from benchmarks.report import Figure, at_least, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec
from preprocess.machine.cores import available_cores

NETWORKS = ("inception_v3", "mobilenet_1.0_224", "efficientnet_lite0", "resnet50", "efficientnet_v2_b0")
_CHOICES = ("openvino/float32", "openvino/bfloat16")
_BOUND_TARGET = 0.95
_KERAS_TARGET = 1.0


def measure_network(
    network: str, photo_set: PhotoSet, folder: pathlib.Path, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """What `benchmarks.pipeline.measure_choice` gives for each choice, with `network` and the rate of `keras`."""
    backbone = BackboneSpec(architecture=network, weights="random", seed=0)
    lists = make_lists(photo_set, args.peer_images, folder / "keras")
    keras_rates = [peers.keras_predict_rate(str(lists.folder), backbone)]
    measured = [
        measure_choice(
            choice,
            photo_set,
            folder,
            seconds=args.seconds,
            rounds=args.rounds,
            fewest_rows=args.rows,
            backbone=backbone,
        )
        for choice in args.choices
    ]
    keras_rates.append(peers.keras_predict_rate(str(lists.folder), backbone))
    keras = statistics.mean(keras_rates)
    say(f"{network}: keras.Model.predict {keras:.1f} images/s")
    return [{"network": network, "keras": keras, **one} for one in measured if one is not None]


def figures(measured: Sequence[dict[str, Any]]) -> list[Figure]:
    """The figures of the table."""
    rows = []
    for one in measured:
        name = f"{one['network']}, {one['choice']}"
        rows.append(
            Figure(
                figure=f"{name}: of the bound",
                ours=f"{one['ours']:.4g} images/s",
                peer=f"{one['bound']:.4g} images/s",
                ratio=round(one["ratio"], 4),
                target=f">= {_BOUND_TARGET:g}",
                met=one["ratio"] >= _BOUND_TARGET,
            )
        )
        rows.append(
            at_least(f"{name}: keras.Model.predict, float32", one["ours"], one["keras"], _KERAS_TARGET, unit="images/s")
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME", help="see `hugs backbones`")
    parser.add_argument("--choices", nargs="+", default=_CHOICES, metavar="ENGINE/PRECISION")
    parser.add_argument("--seconds", type=float, default=10, help="of a run (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each choice (default: 3)")
    parser.add_argument("--rows", type=int, default=512, help="fewest rows of a run (default: 512)")
    parser.add_argument("--peer_images", type=int, default=192, help="a multiple of 32 (default: 192)")
    parser.add_argument("--quick", action="store_true", help="one short run of each, in the first precision")
    args = parser.parse_args(argv)
    if args.quick:
        args.seconds, args.rounds, args.rows = min(args.seconds, 3), 1, min(args.rows, 256)
        args.peer_images, args.choices = min(args.peer_images, 64), args.choices[:1]
    photo_set = find_photos(args.photos)
    say(f"{available_cores()} cores; {photo_set.describe()}")
    measured: list[dict[str, Any]] = []
    for network in args.networks:
        # Lists of thousands of photos are made for each network, so they are removed at once.
        with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
            measured += measure_network(network, photo_set, pathlib.Path(folder), args)
    finish("networks", figures(measured), photos=photo_set.name, cores=available_cores(), networks=measured)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
