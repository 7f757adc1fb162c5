"""The engine and the pipeline at 1 ... all cores: the chosen streams against the best ones, and the bound.

    python -m benchmarks.streams [--photos DIR] [--cores N ...] [--choice openvino/bfloat16] [--seconds S] [--quick]

For each number of cores, a process of its own runs on so many of them (`sched_setaffinity`, as `taskset` does):

- The network alone with 1 ... as many streams as cores, in turns. Ours is the setting that a long job takes: OpenVINO's
  hint, or what `preprocess.engines.streams` measured to be faster. It is compared with the best of all settings.
- The pipeline against its bound, as `benchmarks.pipeline` does.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import engines, pipeline
from benchmarks.photos import ROOT, add_photos_flag, find_photos
from benchmarks.report import Figure, finish, noise_of, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.engines.openvino_engine import OpenVinoEngine
from preprocess.engines.streams import candidates, images_per_sec, measure
from preprocess.machine.cores import available_cores

_OF_BEST = 0.95
_OF_BOUND = 0.95
_MAX_SETTINGS = 8
# About what a core embeds in a second; it decides only how long a measurement takes.
_IMAGES_A_CORE_SEC = 30


def _settings(cores: int) -> list[int]:
    """1 ... cores, at most `_MAX_SETTINGS` of them."""
    return sorted({round(number) for number in np.geomspace(1, cores, min(cores, _MAX_SETTINGS))})


def _measure_here(choice: str, photos: str | None, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Measures on the cores of this process."""
    photo_set = find_photos(photos)
    paths = [path for path, _ in photo_set.photos]
    engine = engines.load(choice, paths)
    if not isinstance(engine, OpenVinoEngine):
        return {}
    cores = available_cores()
    pixels = np.ascontiguousarray(np.resize(engines.read_pixels(paths[:8]), (engine.batch_size, 299, 299, 3)))
    numbers = candidates(engine.streams, cores)
    chosen = measure(engine, numbers, pixels).best if len(numbers) > 1 else engine.streams
    settings = {number: engine.with_streams(number) for number in {*_settings(cores), chosen}}
    expected = engine.start(pixels).result().tobytes()
    same_bytes = all(setting.start(pixels).result().tobytes() == expected for setting in settings.values())
    rates: dict[int, list[float]] = {number: [] for number in settings}
    for turn in range(rounds):
        for number in sorted(settings, reverse=bool(turn % 2)):
            waves = max(2, round(seconds * _IMAGES_A_CORE_SEC * cores / (len(pixels) * settings[number].max_pending)))
            rates[number].append(images_per_sec(settings[number], pixels, waves=waves))
    del settings
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        of_bound = pipeline.measure_choice(
            choice, photo_set, pathlib.Path(folder), seconds=4 * seconds, rounds=rounds, fewest_rows=256
        )
    assert of_bound is not None
    return {
        "cores": cores,
        "hint": engine.streams,
        "chosen": chosen,
        "same_bytes": same_bytes,
        "rates": {str(number): rates[number] for number in sorted(rates)},
        "pipeline": of_bound,
        "photos": photo_set.name,
    }


def figures(choice: str, one: dict[str, Any]) -> list[Figure]:
    """The figures of one number of cores."""
    cores = f"{one['cores']} {'core' if one['cores'] == 1 else 'cores'}, {choice}"
    medians = {int(number): statistics.median(rates) for number, rates in one["rates"].items()}
    best = max(medians, key=lambda number: medians[number])
    # Of the same round, because other programs change from round to round.
    of_best = [
        ours / max(others)
        for ours, *others in zip(one["rates"][str(one["chosen"])], *one["rates"].values(), strict=True)
    ]
    of_bound = one["pipeline"]
    return [
        Figure(
            figure=f"{cores}: streams, of the best of {len(medians)} settings",
            ours=f"{medians[one['chosen']]:.4g} images/s with {one['chosen']} (the hint is {one['hint']})",
            peer=f"{medians[best]:.4g} images/s with {best}",
            ratio=round(medians[one["chosen"]] / medians[best], 4),
            target=f">= {_OF_BEST:g}",
            met=medians[one["chosen"]] >= _OF_BEST * medians[best],
            noise=noise_of(of_best),
        ),
        Figure(
            figure=f"{cores}: streams change no byte",
            ours="yes" if one["same_bytes"] else "no",
            target="yes",
            met=one["same_bytes"],
        ),
        Figure(
            figure=f"{cores}: pipeline, of the bound",
            ours=f"{of_bound['ours']:.4g} images/s",
            peer=f"{of_bound['bound']:.4g} images/s",
            ratio=round(of_bound["ratio"], 4),
            target=f">= {_OF_BOUND:g}",
            met=of_bound["ratio"] >= _OF_BOUND,
            noise=of_bound["noise"],
        ),
    ]


def _in_a_process(cores: Sequence[int], flags: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.streams", "--here", *flags],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    *lines, last = done.stdout.splitlines()
    for line in lines:
        say(line)
    return dict(json.loads(last))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--cores", type=int, nargs="+", metavar="N", help="default: 1, 2, 4 ... all that there are")
    parser.add_argument("--choice", default="openvino/bfloat16", metavar="ENGINE/PRECISION")
    parser.add_argument("--seconds", type=float, default=3, help="of a measurement of the network (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.quick:
        args.seconds, args.rounds = min(args.seconds, 0.5), 1
    if args.here:
        say(json.dumps(_measure_here(args.choice, args.photos, seconds=args.seconds, rounds=args.rounds)))
        return EXIT_OK
    mine = sorted(os.sched_getaffinity(0))[: available_cores()]
    numbers = args.cores or [*(2**power for power in range(len(mine).bit_length())), len(mine)]
    flags = ["--choice", args.choice, "--seconds", str(args.seconds), "--rounds", str(args.rounds)]
    if args.photos:
        flags += ["--photos", args.photos]
    measured = []
    for number in sorted({number for number in numbers if 1 <= number <= len(mine)}):
        say(f"on {number} of {len(mine)} cores:")
        one = _in_a_process(mine[:number], flags)
        if one:
            measured.append(one)
    rows = [figure for one in measured for figure in figures(args.choice, one)]
    finish("streams", rows, cores=len(mine), at_cores=measured)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
