"""The short table at the end of a job: where every row went, how fast, and where to look."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from preprocess.record_set import FAILED_NAME, REPORT_NAME, SKIPPED_NAME, sidecar_path
from preprocess.storage import Storage

_LEDGER_LINES_SEARCHED = 10_000


def _first_of_each(path: str, field: str, storage: Storage) -> dict[str, str]:
    """For each reason or rule near the start of a ledger, one row as an example."""
    examples: dict[str, str] = {}
    with storage.open(path) as ledger:
        for line in itertools.islice(ledger, _LEDGER_LINES_SEARCHED):
            entry = json.loads(line)
            examples.setdefault(entry[field], f"{entry['list']}:{entry['line']}: {entry['message']}")
    return examples


def _count_lines(title: str, counts: Mapping[str, int], path: str, field: str, storage: Storage) -> Iterator[str]:
    total = sum(counts.values())
    yield f"  {title:<12}{total:>9}" + (f"  {path}" if total else "")
    if not total:
        return
    examples = _first_of_each(path, field, storage)
    for name, count in counts.items():
        example = f"  e.g. {examples[name]}" if name in examples else ""
        yield f"    {name:<16}{count:>3}{example}"


def summary_lines(report: Mapping[str, Any], prefix: str, *, storage: Storage) -> Iterator[str]:
    """The lines of the table for a report; examples come from the ledgers."""
    output = report["output"]
    backbone = report["backbone"]
    yield f"{prefix}: {report['rows_read']} rows read"
    megabytes = output["num_bytes"] / 1e6
    shards = "1 shard" if output["shards"] == 1 else f"{output['shards']} shards"
    where = f"  {prefix}-* ({shards}, {megabytes:.1f} MB)" if output["shards"] else ""
    yield f"  {'embedded':<12}{report['embedded']:>9}{where}"
    yield from _count_lines("failed", report["failed"], sidecar_path(prefix, FAILED_NAME), "reason", storage)
    yield from _count_lines("skipped", report["skipped"], sidecar_path(prefix, SKIPPED_NAME), "rule", storage)
    if report["records_without_label"]:
        yield f"  {'unlabeled':<12}{report['records_without_label']:>9}  of those embedded"
    engines = ", ".join(f"{engine['engine']} {engine['precision']}" for engine in report["engines"])
    yield f"  {report['wall_sec']:.1f} s, {report['images_per_sec'] or 0:.1f} images/s, {engines}"
    if backbone["random_weights"]:
        yield (
            f"  RANDOM weights (seed {backbone['seed']}): these embeddings are for trying things out; "
            "use --weights imagenet for real ones."
        )
    yield f"  report: {sidecar_path(prefix, REPORT_NAME)}"


def print_summary(report: Mapping[str, Any], prefix: str, *, storage: Storage) -> None:
    """Prints the table on standard output."""
    print("\n".join(summary_lines(report, prefix, storage=storage)))
