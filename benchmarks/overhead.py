"""The pipeline's own cost for each row: everything except reading, decoding and the backbone.

    python -m benchmarks.overhead [--rows 10000 100000 1000000] [--profile]

The real lists, transforms, local runner, record writer and row accounting run on a list of N rows. Stand-ins that take
no time replace the read, the decode and the backbone (16 floats for each embedding). Each N runs in a separate process.
It measures the rows per second from the start of the preflight scan (which reads the list) to the finished set, without
imports, and the peak memory of the process (`ru_maxrss`, with the imports of Beam). "Linear" means that the time for a
row at the largest N is at most 1.25 times the time at any smaller N.

`--profile` prints how many microseconds each function of the main thread takes for a row, for the second N.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program

_ROWS = (10_000, 100_000, 1_000_000)
_QUICK_ROWS = (1_000, 5_000, 20_000)
_LINEAR = 1.25
_TOP_FUNCTIONS = 40


def _write_list(folder: pathlib.Path, rows: int) -> tuple[str, str]:
    list_path, dict_path = folder / "all.csv", folder / "dict.txt"
    names = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    with list_path.open("w") as stream:
        for number in range(rows):
            stream.write(f"gs://a-bucket/flower_photos/{number:09d}_4f2a.jpg,{names[number % len(names)]}\n")
    dict_path.write_text("".join(f"{name}\n" for name in names))
    return str(list_path), str(dict_path)


def _measure(rows: int, *, profile: bool) -> dict[str, Any]:
    """Embeds a list of `rows` rows. The process must not be used for anything else."""
    import cProfile
    import pstats
    import resource
    import time

    from benchmarks.embedding import embed
    from benchmarks.stand_ins import decode_nothing, load_stand_in, read_nothing
    from preprocess.beam.image_source import ImageSource
    from preprocess.beam.transforms import EmbedOptions

    options = EmbedOptions(
        unknown_labels="fail",
        load_engine=load_stand_in,
        images=ImageSource(read=read_nothing, decode=decode_nothing),
    )
    with tempfile.TemporaryDirectory() as folder:
        list_path, dict_path = _write_list(pathlib.Path(folder), rows)
        profiler = cProfile.Profile()
        started = time.perf_counter()
        if profile:
            profiler.enable()
        run = embed(list_path, dict_path, f"{folder}/out/all", options)
        profiler.disable()
        seconds = time.perf_counter() - started
    if run.report["embedded"] != rows:
        raise AssertionError(f"{run.report['embedded']} of {rows} rows were embedded.")
    if profile:
        stats = pstats.Stats(profiler, stream=sys.stderr).strip_dirs()
        stats.sort_stats("tottime").print_stats(_TOP_FUNCTIONS)
        stats.sort_stats("cumulative").print_stats(2 * _TOP_FUNCTIONS)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "seconds": seconds, "peak_bytes": peak_bytes}


def _measure_in_a_process(rows: int, *, profile: bool = False) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.overhead", "--one", str(rows), *(["--profile"] if profile else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    seconds, peak_bytes = measured["seconds"], measured["peak_bytes"]
    say(
        f"{rows:>9,} rows: {seconds:7.2f} s, {rows / seconds:8,.0f} rows/s, {1e6 * seconds / rows:6.1f} us a row, "
        f"peak {peak_bytes / 2**30:.2f} GB"
    )
    return measured


def _figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    largest = runs[-1]
    growth = max(largest["seconds"] / largest["rows"] / (run["seconds"] / run["rows"]) for run in runs)
    rows = f"{largest['rows']:,} rows with stand-ins"
    return [
        limit(f"{rows}: rate", largest["rows"] / largest["seconds"], 5000, unit="rows/s"),
        limit(f"{rows}: peak memory", largest["peak_bytes"] / 2**30, 4, unit="GB", at_most=True),
        limit(f"{rows}: time a row, against shorter lists", growth, _LINEAR, unit="x", at_most=True),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="lengths of the lists, rising")
    parser.add_argument("--quick", action="store_true", help="short lists")
    parser.add_argument("--profile", action="store_true", help="also profile the second length, to standard error")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        say(json.dumps(_measure(args.one, profile=args.profile)))
        return EXIT_OK
    lengths = args.rows or (_QUICK_ROWS if args.quick else _ROWS)
    runs = [_measure_in_a_process(rows) for rows in lengths]
    if args.profile:
        _measure_in_a_process(lengths[min(1, len(lengths) - 1)], profile=True)
    finish("overhead", _figures(runs), runs=runs)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
