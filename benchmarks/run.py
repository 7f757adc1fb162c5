"""Runs all benchmarks, each in its own process, and puts their figures into one table.

    python -m benchmarks.run [--only NAME ...] [--photos DIR] [--quick] [--all]

It prints the table, the machine, and the cost of a million images. It writes the same, and the figures as JSON, to
`benchmarks/results/`, under the date, the processor and its cores. `benchmarks.compare` compares two runs.
"""

from __future__ import annotations

import argparse
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

BENCHMARKS = (
    "startup",
    "decode",
    "hostile",
    "overhead",
    "commit_scale",
    "list_passes",
    "photo_map",
    "search",
    "answers",
    "faults",
    "pipeline",
    "streams",
    "networks",
    "fidelity",
    "backbones",
    "views",
    "several_backbones",
    "training",
    "training_profile",
    "training_on_views",
    "serving",
    "serving_hostile",
    "serving_memory",
    "accuracy",
    "audit",
    "audit_scale",
    "drift",
    "label_next",
    "twins",
)
_WITH_PHOTOS = {
    "startup",
    "decode",
    "hostile",
    "faults",
    "pipeline",
    "streams",
    "networks",
    "fidelity",
    "backbones",
    "training_on_views",
    "views",
    "several_backbones",
    "serving",
    "audit",
    "drift",
    "label_next",
    "serving_memory",
    "twins",
}
# With `--all` they take much longer, some of them for hours: the figures of docs/insight.md are of such runs.
_WITH_ALL = {"audit", "audit_scale", "drift", "label_next", "photo_map", "search", "twins"}


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
        "--all", action="store_true", help="the large sizes and all seeds, where the usual ones are fewer: takes hours"
    )
    parser.add_argument(
        "--results", type=pathlib.Path, default=results_files.FOLDER, metavar="DIR", help="default: benchmarks/results"
    )
    args = parser.parse_args(argv)
    facts = machine()
    results = []
    for name in args.only or BENCHMARKS:
        flags = ["--quick"] if args.quick else ["--all"] if args.all and name in _WITH_ALL else []
        if args.photos and name in _WITH_PHOTOS:
            flags += ["--photos", args.photos]
        results.append(_run(name, flags))
    text = summary(results, facts)
    path = results_files.write(args.results, machine=facts, results=results, quick=args.quick, table=text)
    say(f"\n{text}\n{path}")
    return 1 if any("error" in result for result in results) else EXIT_OK


if __name__ == "__main__":
    run_program(main)
