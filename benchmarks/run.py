"""Runs all benchmarks, each in its own process, and puts their figures into one table.

    python -m benchmarks.run [--only NAME ...] [--photos DIR] [--quick]

It prints the table, the machine, and the cost of a million images. It writes the same to `benchmarks/out/results.md`,
and everything that the benchmarks reported to `benchmarks/out/results.json`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.photos import OUT, ROOT, add_photos_flag
from benchmarks.report import say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.machine.cores import available_cores

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
    "networks",
    "fidelity",
    "backbones",
    "views",
    "training",
    "training_on_views",
    "serving",
    "serving_hostile",
    "accuracy",
    "drift",
    "label_next",
)
_WITH_PHOTOS = {
    "startup",
    "decode",
    "hostile",
    "faults",
    "pipeline",
    "networks",
    "fidelity",
    "backbones",
    "training_on_views",
    "views",
    "serving",
    "drift",
    "label_next",
}
_PACKAGES = ("apache-beam", "tensorflow", "keras", "openvino", "nncf", "pillow", "numpy", "scikit-learn")
_NUMBER_FORMATS = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2")

# List prices of Dataflow batch workers in us-central1, on demand, in US dollars. Prices change: put those of
# https://cloud.google.com/dataflow/pricing here.
MACHINE_TYPE, MACHINE_VCPUS, MACHINE_GB = "n2-standard-4", 4, 16
DOLLARS_PER_VCPU_HOUR = 0.056
DOLLARS_PER_GB_HOUR = 0.003557


def cost_of_a_million(choice: str, images_per_sec: float, num_cores: int) -> str:
    """The cost of a million images on `MACHINE_TYPE`, with its calculation."""
    per_core = images_per_sec / num_cores
    per_machine = per_core * MACHINE_VCPUS
    hours = 1_000_000 / per_machine / 3600
    hourly = MACHINE_VCPUS * DOLLARS_PER_VCPU_HOUR + MACHINE_GB * DOLLARS_PER_GB_HOUR
    return (
        f"- {choice}: {images_per_sec:.1f} images/s / {num_cores} cores = {per_core:.2f} a core; "
        f"x {MACHINE_VCPUS} vCPUs = {per_machine:.1f} images/s a machine; "
        f"1,000,000 / {per_machine:.1f} / 3600 = {hours:.2f} machine-hours; "
        f"x ({MACHINE_VCPUS} x ${DOLLARS_PER_VCPU_HOUR:g} + {MACHINE_GB} GB x ${DOLLARS_PER_GB_HOUR:g} "
        f"= ${hourly:.4f} an hour) = **${hours * hourly:.2f}**"
    )


def _costs(results: Sequence[dict[str, Any]]) -> list[str]:
    measured = [
        (one["choice"], one["ours"], result["cores"]) for result in results for one in result.get("measured", ())
    ]
    if not measured:
        return []
    return [
        "",
        f"A million images on Dataflow workers {MACHINE_TYPE} (us-central1, on demand), by arithmetic, not by a run:",
        "",
        *(cost_of_a_million(*one) for one in measured),
        "",
        "This extrapolates from the machine above: it takes a vCPU there to be worth a core here, which it is not if "
        "its processor lacks bfloat16 or int8 arithmetic or two vCPUs share a core. It counts the steady state only: "
        "no start of workers, no disk, no shuffle, no network. The prices are list prices; check them.",
    ]


def machine() -> dict[str, Any]:
    """The machine on which the numbers were measured."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    model = value.strip()
                elif key.strip() == "flags":
                    flags.update(value.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "processor": model,
        "cores": available_cores(),
        "arithmetic": [name for name in _NUMBER_FORMATS if name in flags],
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


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
    photos = sorted({result["photos"] for result in results if "photos" in result})
    lines = [
        *_table(results),
        *_side_by_side(results),
        "",
        f"Measured on {facts['processor']}, {facts['cores']} cores ({', '.join(facts['arithmetic']) or 'unknown'}), "
        f"{facts['memory_gb']:g} GB of memory, {facts['system']}, Python {facts['python']}, {versions}; "
        f"photos: {', '.join(photos) or 'none'}.",
        *_costs(results),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help="default: all")
    add_photos_flag(parser)
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    args = parser.parse_args(argv)
    results = []
    for name in args.only or BENCHMARKS:
        flags = ["--quick"] if args.quick else []
        if args.photos and name in _WITH_PHOTOS:
            flags += ["--photos", args.photos]
        results.append(_run(name, flags))
    facts = machine()
    text = summary(results, facts)
    OUT.mkdir(parents=True, exist_ok=True)
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    everything = {"when": when, "quick": args.quick, "machine": facts, "results": results}
    (OUT / "results.json").write_text(json.dumps(everything, indent=2) + "\n")
    (OUT / "results.md").write_text(text)
    say(f"\n{text}")
    return 1 if any("error" in result for result in results) else EXIT_OK


if __name__ == "__main__":
    run_program(main)
