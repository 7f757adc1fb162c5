"""Runs all benchmarks, each in its own process, and puts their figures into one table.

    python -m benchmarks.run [--only NAME ...] [--photos DIR] [--quick] [--all]

It prints the table, the machine, and the cost of a million images. It writes the same, and the figures as JSON, to
`benchmarks/results/`, under the date, the processor and its cores. `benchmarks.compare` compares two runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import results_files
from benchmarks.costs import cost_lines
from benchmarks.machine import machine
from benchmarks.photos import ROOT, add_photos_flag
from benchmarks.report import say
from configs.errors import EXIT_OK
from configs.program import run_program


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark as it takes part in the run of all.

    Attributes:
      usual: its flags in the usual run, which is to end within 20 minutes on 2 cores: fewer rounds, shorter lists.
      all: its flags with `--all`: as the figures of the pages were measured.
      takes_photos: it measures with the photos of `--photos`.
    """

    usual: str = ""
    all: str = ""
    takes_photos: bool = False


BENCHMARKS = {
    "startup": Benchmark(takes_photos=True),
    "decode": Benchmark(takes_photos=True),
    "hostile": Benchmark(takes_photos=True),
    "overhead": Benchmark(usual="--rows 10000 100000"),
    "commit_scale": Benchmark(usual="--rows 100000 1000000"),
    "list_passes": Benchmark(usual="--rows 100000 500000"),
    "photo_map": Benchmark(all="--all"),
    "search": Benchmark(all="--all"),
    "serving_search": Benchmark(usual="--records 500,20000", takes_photos=True),
    "answers": Benchmark(usual="--rows 30000 --turns 2"),
    "faults": Benchmark(takes_photos=True),
    "pipeline": Benchmark(usual="--rounds 1 --rows 256 --seconds 8 --peer_images 64", takes_photos=True),
    "streams": Benchmark(usual="--rounds 1 --seconds 2", takes_photos=True),
    "networks": Benchmark(usual="--rounds 1 --rows 128 --seconds 3 --peer_images 64", takes_photos=True),
    "fidelity": Benchmark(usual="--count 200 --seeds 3", takes_photos=True),
    "backbones": Benchmark(usual="--count 200 --seeds 3", takes_photos=True),
    "views": Benchmark(usual="--count 64 --rounds 3", takes_photos=True),
    "several_backbones": Benchmark(usual="--count 100 --rounds 3", takes_photos=True),
    "training": Benchmark(usual="--examples 20000 --epochs 10"),
    "training_profile": Benchmark(),
    "training_on_views": Benchmark(usual="--steps 300", takes_photos=True),
    "serving": Benchmark(usual="--quick", takes_photos=True),
    "serving_hostile": Benchmark(),
    "serving_memory": Benchmark(usual="--requests 2000", takes_photos=True),
    "accuracy": Benchmark(usual="--splits 2 --trials 4"),
    "audit": Benchmark(all="--all", takes_photos=True),
    "audit_scale": Benchmark(all="--all"),
    "drift": Benchmark(all="--all", takes_photos=True),
    "label_next": Benchmark(all="--all", takes_photos=True),
    "twins": Benchmark(all="--all", takes_photos=True),
}


def flags_of(name: str, *, quick: bool, all_sizes: bool) -> list[str]:
    """The flags that the run of all gives to a benchmark."""
    benchmark = BENCHMARKS[name]
    if quick:
        return ["--quick"]
    return (benchmark.all if all_sizes else benchmark.usual).split()


def _run(name: str, flags: Sequence[str]) -> dict[str, Any]:
    """Runs one benchmark and prints its output. Its last line is its result."""
    say(f"\n== {name}")
    started = time.monotonic()
    last = ""
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *flags], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                say(last)
            last = line.rstrip("\n")
    try:
        result = json.loads(last)
    except ValueError:
        say(last)
        result = {}
    if process.returncode or not isinstance(result, dict) or "rows" not in result:
        result = {"benchmark": name, "rows": [], "error": f"exit code {process.returncode}, no result"}
    result["wall_sec"] = round(time.monotonic() - started, 1)
    return result


def _table(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| figure | ours | against | ratio | target | |", "|---|---|---|---|---|---|"]
    for result in results:
        if "error" in result:
            lines.append(f"| {result['benchmark']} | {result['error']} | | | | **failed** |")
        for row in result["rows"]:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}x"
            verdict = {True: "met", False: "**missed**", None: ""}[row["met"]]
            cells = (row["figure"], row["ours"], row["peer"] or "", ratio, row["target"] or "", verdict)
            lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def _side_by_side(results: Sequence[dict[str, Any]]) -> list[str]:
    """The images per second of ours and of the peers, from the benchmark that measured them."""
    lines: list[str] = []
    for result in results:
        if not result.get("measured"):
            continue
        peers = result["peers"]
        lines += ["", "| images/s | ours | bound | keras.Model.predict, float32 | stock RunInference, float32 |"]
        lines += ["|---|---|---|---|---|"]
        for one in result["measured"]:
            rates = [one["ours"], one["bound"], peers.get("keras"), peers.get("beam")]
            cells = " | ".join("" if rate is None else f"{rate:.1f}" for rate in rates)
            lines.append(f"| {one['choice']} | {cells} |")
    return lines


def summary(results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """All results as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    slowest = sorted(((result["wall_sec"], result["benchmark"]) for result in results), reverse=True)[:5]
    photos = sorted({result["photos"] for result in results if "photos" in result})
    lines = [
        *_table(results),
        *_side_by_side(results),
        "",
        f"Measured on {facts['processor']}, {facts['cores']} cores ({', '.join(facts['arithmetic']) or 'unknown'}), "
        f"{facts['memory_gb']:g} GB of memory, {facts['system']}, Python {facts['python']}, {versions}; "
        f"photos: {', '.join(photos) or 'none'}. {facts['load']} processes were busy when the run began. "
        f"It took {sum(result['wall_sec'] for result in results) / 60:.1f} minutes"
        f" (of them {', '.join(f'{name} {sec:.0f} s' for sec, name in slowest)}).",
        *cost_lines(results, facts["arithmetic"]),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help="default: all")
    add_photos_flag(parser)
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument(
        "--all", action="store_true", help="the sizes, rounds and seeds of the figures in the pages: takes hours"
    )
    parser.add_argument(
        "--results", type=pathlib.Path, default=results_files.FOLDER, metavar="DIR", help="default: benchmarks/results"
    )
    args = parser.parse_args(argv)
    facts = machine()
    results = []
    for name in args.only or BENCHMARKS:
        flags = flags_of(name, quick=args.quick, all_sizes=args.all)
        if args.photos and BENCHMARKS[name].takes_photos:
            flags += ["--photos", args.photos]
        results.append(_run(name, flags))
    text = summary(results, facts)
    path = results_files.write(args.results, machine=facts, results=results, quick=args.quick, table=text)
    say(f"\n{text}\n{path}")
    return 1 if any("error" in result for result in results) else EXIT_OK


if __name__ == "__main__":
    run_program(main)
