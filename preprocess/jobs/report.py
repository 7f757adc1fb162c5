"""The report of a job: every row accounted for, what made the records, where the time went."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from configs.counts import counted
from preprocess.jobs.block_results import COMPUTED, FROM_CACHE, BlockResult
from preprocess.jobs.job import Job
from preprocess.jobs.planned_cost import compared
from preprocess.records.record_set import REPORT_FORMAT, Shard

COMPLETE = "complete"
NOTHING_EMBEDDED = "nothing_embedded"
TOO_MANY_FAILED = "too_many_failed"
WRONG_ROW_ACCOUNTING = "books_do_not_balance"
# The rate after the start is measured if at least so many batches come after the first one.
_FEWEST_BATCHES = 4


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts by name, largest first."""
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _cache_use(sources: Mapping[str, int], job: Job) -> dict[str, Any] | None:
    if job.embedding_cache is None:
        return None
    return {
        "folder": job.embedding_cache,
        "hits": sources.get(FROM_CACHE, 0),
        "misses": sources.get(COMPUTED, 0),
    }


def _rows_are_accounted_for(results: Sequence[BlockResult], shards: Sequence[Shard], rows_expected: int) -> bool:
    return (
        all(
            result.rows == result.embedded + sum(result.failed.values()) + sum(result.skipped.values())
            and result.embedded == (result.shard.records if result.shard is not None else 0)
            for result in results
        )
        and sum(result.rows for result in results) == rows_expected
        and sum(shard.records for shard in shards) == sum(result.embedded for result in results)
    )


def _verdict(
    results: Sequence[BlockResult], shards: Sequence[Shard], job: Job, failed_percent: float
) -> tuple[str, str | None]:
    rows_read = sum(result.rows for result in results)
    if not _rows_are_accounted_for(results, shards, job.rows_expected):
        expected = counted(job.rows_expected, "row")
        were = "was" if job.rows_expected == 1 else "were"
        return WRONG_ROW_ACCOUNTING, f"{expected} {were} counted before the start, {rows_read} were read."
    if not shards:
        return NOTHING_EMBEDDED, f"None of {counted(rows_read, 'row')} could be embedded."
    if failed_percent > job.max_failed_percent:
        return TOO_MANY_FAILED, (
            f"{failed_percent:.3g} % of the rows to embed failed, more than max_failed_percent "
            f"({job.max_failed_percent:g}) allows."
        )
    return COMPLETE, None


def _steady_state(results: Sequence[BlockResult], job: Job) -> tuple[float | None, float | None]:
    """The seconds until the first embeddings of this run were there, and the rate from then on, in images a second.

    The first is None if nothing was computed. The second is None if too few images came after the first batch, as the
    batches that were computed at the same time would be most of what is counted.
    """
    timed = [result for result in results if result.first_batch_at]
    if not timed:
        return None, None
    first = min(timed, key=lambda result: result.first_batch_at)
    lasted_sec = max(result.last_batch_at for result in timed) - first.first_batch_at
    images = sum(result.sources.get(COMPUTED, 0) for result in timed) - first.first_batch_images
    is_measured = images >= _FEWEST_BATCHES * first.first_batch_images and lasted_sec > 0
    startup_sec = max(first.first_batch_at - job.started.timestamp(), 0.0)
    return round(startup_sec, 3), round(images / lasted_sec, 3) if is_measured else None


def make_report(
    results: Sequence[BlockResult], *, label_counts: Mapping[int, int], job: Job, shards: Sequence[Shard]
) -> dict[str, Any]:
    """The report of a job, as JSON.

    Args:
      results: of all blocks; their `content` and `label_counts` are not looked at.
      label_counts: the sum of their `label_counts`.
      job: the job.
      shards: of the set.
    """
    failed = _sum_counts(result.failed for result in results)
    sources = _sum_counts(result.sources for result in results)
    embedded = sum(sources.values())
    tried = embedded + sum(failed.values())
    failed_percent = 100 * sum(failed.values()) / tried if tried else 0.0
    status, error = _verdict(results, shards, job, failed_percent)
    wall_sec = (datetime.datetime.now(datetime.UTC) - job.started).total_seconds()
    computed = sources.get(COMPUTED, 0)
    startup_sec, steady_images_per_sec = _steady_state(results, job)
    images_per_sec = round(computed / wall_sec, 3) if wall_sec > 0 else None
    read_bytes = sum(result.read_bytes for result in results)
    decode_sec = sum(result.decode_sec for result in results)
    return {
        "format": REPORT_FORMAT,
        "run_id": job.run_id,
        "job_key": job.key,
        "status": status,
        "error": error,
        "rows_read": sum(result.rows for result in results),
        "embedded": embedded,
        "embedded_by": sources,
        "embedding_cache": _cache_use(sources, job),
        "failed": failed,
        "failed_percent": round(failed_percent, 3),
        "skipped": _sum_counts(result.skipped for result in results),
        "records_per_label": {name: label_counts.get(label_id, 0) for label_id, name in enumerate(job.labels)},
        "records_without_label": sum(result.unlabeled for result in results),
        "views": 1 if job.views is None else job.views.count,
        # Sets that other backbones made in the same run: each image was read and decoded once for all of them.
        "together_with": list(job.together_with),
        "started": job.started.isoformat(timespec="seconds"),
        "wall_sec": round(wall_sec, 3),
        # Of the images that were embedded anew, over the whole time. Of few images most of that is the start.
        "images_per_sec": images_per_sec,
        "startup_sec": startup_sec,
        "steady_images_per_sec": steady_images_per_sec,
        "prediction": None
        if job.planned_cost is None
        else compared(
            job.planned_cost,
            actual={
                "wall_sec": round(wall_sec, 3),
                "images_per_sec": images_per_sec,
                "read_bytes": read_bytes,
                "decode_sec_per_image": round(decode_sec / computed, 6) if computed else None,
                "failed_percent": round(failed_percent, 3),
            },
            sources=sources,
            is_retry=job.retry is not None,
        ),
        "read_bytes": read_bytes,
        "read_sec": round(sum(result.read_sec for result in results), 3),
        "decode_sec": round(decode_sec, 3),
        "waited_for_images_sec": round(sum(result.waited_for_images_sec for result in results), 3),
        "waited_for_engine_sec": round(sum(result.waited_for_engine_sec for result in results), 3),
        "backbone": results[0].backbone.to_json(),
        # One, unless workers are machines of different kinds.
        "engines": [engine.to_json() for engine in dict.fromkeys(result.engine for result in results)],
        "input": list(job.input_paths),
        "definition": dict(job.definition),
        "output": {
            "prefix": job.output_prefix,
            "shards": len(shards),
            "num_bytes": sum(shard.num_bytes for shard in shards),
            "compression": job.compression,
        },
        "versions": job.versions,
    }
