"""Compares two runs of `benchmarks.run`, and says which figures are better or worse beyond noise.

    python -m benchmarks.compare [BEFORE.json AFTER.json]

By default it takes the two newest runs of `benchmarks/results/`. A figure with a peer is compared by its ratio to the
peer, which both runs measured by themselves: such ratios tell something on different machines and under different load.
A figure without a peer, such as a time or a memory, is compared only if both machines are of one kind.

A difference counts if it is larger than the noise of both runs together. Noise is what the rounds of a benchmark say
of each other; where there are no rounds, a tenth is assumed, and a quarter for a figure without a peer.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import results_files
from benchmarks.machine import describe, is_same
from benchmarks.report import say
from configs.console import require_printed
from configs.errors import EXIT_OK
from configs.program import run_program

# Of a ratio to a peer that was measured once, and of a figure that other work on the machine changes.
_NOISE_OF_RATIO = 0.10
_NOISE_OF_FIGURE = 0.25
_LEAST_NOISE = 0.02
_NUMBER = re.compile(r"\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)(?![\w.])\s*(.*)", re.DOTALL)


def _quantity(row: dict[str, Any]) -> tuple[float, str] | None:
    """The number of a figure and its unit; None if the text does not begin with a positive number."""
    found = _NUMBER.fullmatch(str(row["ours"]))
    number = float(found[1].replace(",", "")) if found else 0.0
    return (number, found[2]) if found and number > 0 else None


def change(before: dict[str, Any], after: dict[str, Any], *, same_machine: bool) -> tuple[float, float, str] | None:
    """How a figure changed.

    Args:
      before: the row of a table.
      after: the row of the same figure in another run.
      same_machine: both runs were made on machines of one kind.

    Returns:
      After as a multiple of before, the noise of this (0.1 is a tenth), and what it means: "better", "worse", "within
      noise", or "changed" if nobody said which direction is better. None if the two cannot be compared.
    """
    noise = [row.get("noise") for row in (before, after)]
    larger_is_better: bool | None
    if before["ratio"] and after["ratio"]:
        factor, assumed, larger_is_better = after["ratio"] / before["ratio"], _NOISE_OF_RATIO, True
    else:
        quantities = _quantity(before), _quantity(after)
        if not same_machine or None in quantities or quantities[0][1] != quantities[1][1]:  # type: ignore[index]
            return None
        factor, assumed = quantities[1][0] / quantities[0][0], _NOISE_OF_FIGURE  # type: ignore[index]
        target = after.get("target") or ""
        larger_is_better = None if not target else not target.startswith("<")
    allowed = max(sum(assumed if one is None else one for one in noise), _LEAST_NOISE)
    if abs(math.log(factor)) <= math.log1p(allowed):
        return factor, allowed, "within noise"
    if larger_is_better is None:
        return factor, allowed, "changed"
    return factor, allowed, "better" if (factor > 1) == larger_is_better else "worse"


def _rows(run: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(result["benchmark"], row["figure"]): row for result in run["results"] for row in result["rows"]}


def lines(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The comparison of two runs, as Markdown."""
    same = is_same(before["machine"], after["machine"])
    for name, run in (("before", before), ("after", after)):
        load = run["machine"].get("load")
        quick = ", quick (small sizes)" if run["quick"] else ""
        yield f"{name}: {run['when']}, {describe(run['machine'])}, load {load} when it began{quick}"
    if not same:
        yield "The machines differ, so only ratios to peers of the same run are compared."
    if before["quick"] != after["quick"]:
        yield "One of the runs was quick: its sizes are smaller, and figures that depend on them differ."
    changed = [
        f"{name} {before['machine']['versions'].get(name)} -> {version}"
        for name, version in after["machine"]["versions"].items()
        if version != before["machine"]["versions"].get(name)
    ]
    if changed:
        yield f"Versions: {', '.join(changed)}"
    yield ""
    yield "| benchmark | figure | before | after | after / before | |"
    yield "|---|---|---|---|---|---|"
    first, second = _rows(before), _rows(after)
    counts = {"better": 0, "worse": 0, "within noise": 0, "changed": 0, "not compared": 0}
    for key in [*first, *(key for key in second if key not in first)]:
        one, other = first.get(key), second.get(key)
        found = change(one, other, same_machine=same) if one and other else None
        factor, noise, verdict = found or (None, None, "not compared")
        counts[verdict] += 1
        cells = [*key, _cell(one), _cell(other), "" if factor is None else f"{factor:.3g} ± {noise:.2g}"]
        yield f"| {' | '.join(cells)} | {f'**{verdict}**' if verdict in ('better', 'worse') else verdict} |"
    yield ""
    yield ", ".join(f"{verdict}: {count}" for verdict, count in counts.items() if count) + "."


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['ours']} ({row['ratio']:.3g}x)" if row["ratio"] else str(row["ours"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "runs", nargs="*", metavar="FILE", help="two files of benchmarks/results/ (default: the newest two)"
    )
    args = parser.parse_args(argv)
    if len(args.runs) not in (0, 2):
        parser.error(f"two files are wanted, or none. Received: {len(args.runs)}")
    before, after = (results_files.read(path) for path in args.runs or results_files.newest(2))
    for line in lines(before, after):
        say(line)
    require_printed()
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
