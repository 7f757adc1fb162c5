"""The short table at the end: how many photos were answered, how, and where the answers lie."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from configs.counts import counted
from pipelines.planning import amounts

_LABELS_SHOWN = 5


def answer_lines(told: Mapping[str, Any], prefix: str, *, again: str, seconds: float | None = None) -> Iterator[str]:
    """The lines of the table.

    Args:
      told: what `answers.json` holds.
      prefix: of the answers.
      again: the command that tries failed photos again.
      seconds: how long the answering took; None if nothing was left to do.
    """
    answered = told["answered"]
    files = told["files"]
    size = amounts.num_bytes(sum(file["num_bytes"] for file in files))
    yield f"{prefix}: {counted(answered, 'answer')}" + (f" in {amounts.duration(seconds)}" if seconds else "")
    if told["answered_by"].get("threshold"):
        yield f"  {'confident':<12}{told['confident']:>9}  of them"
    for label, number in itertools.islice(told["by_label"].items(), _LABELS_SHOWN):
        yield f"    {number:>15}  {label or '(no label)'}"
    if (more := len(told["by_label"]) - _LABELS_SHOWN) > 0:
        yield f"    {'':>15}  and {counted(more, 'other label')}"
    if told["labelled"]:
        share = told["correct"] / told["labelled"]
        yield f"  {'right':<12}{told['correct']:>9}  of {told['labelled']} that have a label ({share:.1%})"
    for what in ("failed", "skipped"):
        if number := sum(told.get(what, {}).values()):
            yield f"  {what:<12}{number:>9}  {told[f'{what}_rows']}"
    if sum(told.get("failed", {}).values()):
        yield f"  to try them again: {again}"
    first = posixpath.join(posixpath.dirname(prefix), files[0]["name"])
    where = first if len(files) == 1 else f"{first} ... ({counted(len(files), 'file')})"
    if "rows_read" in told:
        records = told["made_of"][0][0]
        yield f"  records: {records}-* (with --data_paths, other models answer from them without reading a photo)"
    yield f"  answers: {where} ({size})"


def print_answers(told: Mapping[str, Any], prefix: str, *, again: str, seconds: float | None = None) -> None:
    """Prints the table on standard output; see `answer_lines`."""
    print("\n".join(answer_lines(told, prefix, again=again, seconds=seconds)))
