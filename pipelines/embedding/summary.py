"""The short table at the end of a job: the outcomes of its rows, its speed, and the paths of its files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from configs.counts import counted
from pipelines.planning import amounts
from preprocess.jobs.block_results import COMPUTED, COPIED, FROM_CACHE, FROM_EARLIER_RUN
from preprocess.jobs.estimate import Estimate
from preprocess.jobs.report import COMPLETE
from preprocess.records.record_set import FAILED_NAME, REPORT_NAME, SKIPPED_NAME
from preprocess.storage.base import Storage

_LINES_SEARCHED = 10_000


def _first_of_each(path: str, field: str, storage: Storage, *, number: int) -> dict[str, list[str]]:
    """Some rows as examples for each reason or rule, from the start of a file of failed or skipped rows."""
    examples: dict[str, list[str]] = {}
    with storage.open(path) as stream:
        for line in itertools.islice(stream, _LINES_SEARCHED):
            entry = json.loads(line)
            of_this = examples.setdefault(entry[field], [])
            if len(of_this) < number:
                # Always one line, also if a URI contains line breaks.
                uri, message = entry["uri"], entry["message"]
                # A line of a list that this program made itself says nothing to people, and the image does.
                told = message if uri in message else f"{uri}: {message}"
                of_this.append(" ".join(f"{entry['list']}:{entry['line']}: {told}".split()))
    return examples


def _count_lines(
    title: str, counts: Mapping[str, int], path: str, field: str, storage: Storage, *, examples_each: int
) -> Iterator[str]:
    total = sum(counts.values())
    yield f"  {title:<12}{total:>9}" + (f"  {path}" if total else "")
    if not total:
        return
    examples = _first_of_each(path, field, storage, number=examples_each)
    for name, count in counts.items():
        first, *others = examples.get(name) or [""]
        yield f"    {name:<16}{count:>3}" + (f"  e.g. {first}" if first else "")
        for other in others:
            yield f"    {'':<19}       {other}"


def _records(number: int) -> str:
    return "record" if number == 1 else "records"


def _content_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Lines about duplicate images and images in other sets, if there are any."""
    duplicates = report.get("duplicates")
    if duplicates and duplicates["images"]:
        conflicts = duplicates["images_with_different_labels"]
        yield (
            f"  {'duplicates':<12}{duplicates['extra_records']:>9}  {_records(duplicates['extra_records'])} of "
            f"{counted(duplicates['images'], 'image')} that {'is' if duplicates['images'] == 1 else 'are'} there "
            f"more than once, {conflicts or 'none'} of them under different labels: {duplicates['file']}"
        )
    for shared in report.get("shared_with", ()):
        where = f": {shared['file']}" if shared["records"] else ""
        yield (
            f"  {'shared':<12}{shared['records']:>9}  {_records(shared['records'])} whose image is also in "
            f"{shared['prefix']}{where}"
        )


def _planned_cost_lines(planned_cost: Mapping[str, Any] | None) -> Iterator[str]:
    """Lines that compare the planned cost with what the job took."""
    if planned_cost is None:
        return
    if not planned_cost["compared"]:
        yield f"  not compared with the plan: {planned_cost['why_not']}"
        return
    quantities = planned_cost["quantities"]
    if "wall_sec" in quantities:
        wall_sec = quantities["wall_sec"]
        actual = wall_sec["actual"]
        verdict = ""
        if not wall_sec["low"] <= actual <= wall_sec["high"]:
            verdict = f", {'less' if actual < wall_sec['low'] else 'more'} than that"
        predicted = amounts.duration(Estimate.from_json(wall_sec))
        yield f"  predicted {predicted}, took {amounts.duration(actual)}{verdict} ({planned_cost['where']})"
    else:
        read_bytes = quantities["read_bytes"]
        predicted = amounts.num_bytes(Estimate.from_json(read_bytes))
        yield f"  predicted to read {predicted}, read {amounts.num_bytes(read_bytes['actual'])}; no time was predicted"


def _speed(report: Mapping[str, Any]) -> str:
    """The time that a job took and the rate at which it embedded; the start is not a part of the rate."""
    words = f"{report['wall_sec']:.1f} s"
    computed = report["embedded_by"].get(COMPUTED, 0)
    if not computed:
        return f"{words}, no image was embedded anew"
    # Reports of workers that run an earlier version lack both.
    startup_sec, rate = report.get("startup_sec"), report.get("steady_images_per_sec")
    if rate is not None:
        words += f", {amounts.number(rate)} images/s once running"
    if startup_sec is not None:
        words += f", {amounts.duration(startup_sec)} to start"
    if computed < report["embedded"]:
        words += f", {counted(computed, 'image')} embedded anew"
    return words


def summary_lines(report: Mapping[str, Any], prefix: str, *, sidecars: str, storage: Storage) -> Iterator[str]:
    """The lines of the table for a report.

    Args:
      report: of the job.
      prefix: of the set.
      sidecars: the folder of the report, the dead letters and the skipped rows; examples come from the last two.
      storage: where they lie.
    """
    complete = report["status"] == COMPLETE
    output = report["output"]
    backbone = report["backbone"]
    yield f"{prefix}: {counted(report['rows_read'], 'row')} read"
    shards = counted(output["shards"], "shard")
    where = f"  {prefix}-* ({shards}, {amounts.num_bytes(output['num_bytes'])})" if complete else ""
    yield f"  {'embedded':<12}{report['embedded']:>9}{where}"
    for source, title in (
        (FROM_EARLIER_RUN, "by earlier runs"),
        (FROM_CACHE, "from the cache"),
        (COPIED, "of equal images"),
    ):
        if report["embedded_by"].get(source):
            yield f"    {title:<16}{report['embedded_by'][source]:>3}"
    for title, name, field, examples_each in (
        ("failed", FAILED_NAME, "reason", 1 if complete else 3),
        ("skipped", SKIPPED_NAME, "rule", 1),
    ):
        path = f"{sidecars}/{name}"
        yield from _count_lines(title, report[title], path, field, storage, examples_each=examples_each)
    yield from _content_lines(report)
    if report.get("views", 1) > 1:
        yield f"  {'views':<12}{report['views']:>9}  in each record; the first one is the image as it is"
    if report["records_without_label"]:
        yield f"  {'unlabeled':<12}{report['records_without_label']:>9}  of those embedded"
    engines = ", ".join(dict.fromkeys(f"{engine['engine']} {engine['precision']}" for engine in report["engines"]))
    yield f"  {_speed(report)}, {engines}"
    if together := report.get("together_with"):
        yield f"  each image was read and decoded once for this set and {', '.join(together)}"
    yield from _planned_cost_lines(report["prediction"])
    if backbone["random_weights"]:
        yield (
            f"  RANDOM weights (seed {backbone['seed']}): these embeddings are for trying things out; "
            "use --weights imagenet for real ones."
        )
    yield f"  report: {sidecars}/{REPORT_NAME}"


def print_summary(report: Mapping[str, Any], prefix: str, *, sidecars: str, storage: Storage) -> None:
    """Prints the table on standard output."""
    print("\n".join(summary_lines(report, prefix, sidecars=sidecars, storage=storage)))
