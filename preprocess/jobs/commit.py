"""The commit of a set: checks the row accounting, then makes the set from the blocks' parts, or says why it cannot.

The order of the steps makes every stop harmless. First the commit reads and checks everything, and writes all files of
the set except the shards beside the parts (`_stage`). It writes the journal last there. Only then it changes an older
set (`preprocess.jobs.journal`), and it writes the new manifest last of all.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

from configs.activity import doing
from configs.errors import InputError
from configs.json_text import json_line
from preprocess.jobs.block_results import BlockResult
from preprocess.jobs.duplicates_report import (
    DUPLICATES_NAME,
    SHARED_NAME,
    ImagesOfSet,
    ShardFile,
    digest_table,
    report_duplicates,
    report_shared,
)
from preprocess.jobs.finished_set import FILES, read_finished
from preprocess.jobs.job import JOURNAL_NAME, Job
from preprocess.jobs.journal import (
    JournalUnusable,
    Placement,
    journal_path,
    make_set,
    require_parts,
    staged_path,
    with_final_names,
)
from preprocess.jobs.made_with import differences
from preprocess.jobs.report import COMPLETE, make_report
from preprocess.jobs.result_spool import SpooledResults, temporary_folder
from preprocess.jobs.set_files import digest_of, own_path
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SKIPPED_NAME,
    Manifest,
    Shard,
    sidecar_path,
)
from preprocess.storage.base import Storage, write_file
from preprocess.storage.in_order import map_in_order

# Object stores take 50 ms or more for each.
_READS_AT_ONCE = 32


class JobFailed(RuntimeError):  # noqa: N818 (the name says what happened)
    """The job ran to its end, and its report says that it failed."""


def finish_record_set(results: Iterable[BlockResult], *, job: Job, storage: Storage) -> dict[str, Any]:
    """Commits a set: shards under their final names, dead letters, skipped rows, report, and last the manifest.

    Row accounting means: rows read = embedded + failed + skipped, in each block and in all, and as many rows were read
    as were counted before the start. If that does not hold, if nothing was embedded or if too many rows failed, nothing
    of the set is touched. The report, the dead letters and the parts then stay in the job's folder of parts for a later
    run.

    Runners may run this step twice, also at the same time: both runs end in the same set.

    Args:
      results: of all blocks, in any order. They are taken one after the other, and only a summary of each is kept in
        memory.
      job: the job.
      storage: where the parts and the set lie.

    Returns:
      The report, as written to `report.json`.

    Raises:
      OSError: storage failed; the set then has no manifest, or its complete one.
      JobFailed: workers used different backbones, precisions or libraries, or a part is missing or truncated; nothing
        was touched.
    """
    try:
        with doing(f"finishing {posixpath.basename(job.output_prefix)}"):
            return _finished_report(job, storage) or _finish(results, job, storage)
    except (FileNotFoundError, JournalUnusable, JobFailed) as error:
        # Another attempt at this step may have finished the set meanwhile, and deleted the parts.
        report = _finished_report(job, storage)
        if report is not None:
            return report
        if isinstance(error, JournalUnusable):
            raise JobFailed(
                f"{error}. Give the same command again: what is gone is embedded again, all else is kept."
            ) from error
        raise


def _finish(unordered: Iterable[BlockResult], job: Job, storage: Storage) -> dict[str, Any]:
    with SpooledResults(unordered, folder=temporary_folder(job)) as spooled:
        report, placed = _prepare(spooled, job, storage)
    if placed is not None:
        make_set(spooled.summaries, placed, job=job, storage=storage)
    return report


def _prepare(spooled: SpooledResults, job: Job, storage: Storage) -> tuple[dict[str, Any], Sequence[Placement] | None]:
    """Writes all of the set that can be written before it is made: the report, and the placements of its shards.

    The second is None if there is no set to make.
    """
    results = spooled.summaries
    _require_one_arithmetic(results)
    finals = with_final_names(results, job)
    shards = tuple(
        Shard(name=shard.name, records=shard.records, num_bytes=shard.num_bytes, sha256=shard.sha256)
        for result in finals
        if (shard := result.shard) is not None
    )
    report = make_report(results, label_counts=spooled.label_counts, job=job, shards=shards)
    if report["status"] != COMPLETE:
        _write_rows_without_record(storage, results, job, folder=job.parts_dir)
        write_file(storage, posixpath.join(job.parts_dir, REPORT_NAME), _json_bytes(report))
        return report, None
    placed = require_parts(results, job, storage, of_this_run=True)
    _stage(spooled, finals, placed, shards, report, job=job, storage=storage)
    _write_results(journal_path(job), spooled.whole(), storage)
    return report, placed


def _stage(
    spooled: SpooledResults,
    finals: Sequence[BlockResult],
    placed: Sequence[Placement],
    shards: tuple[Shard, ...],
    report: dict[str, Any],
    *,
    job: Job,
    storage: Storage,
) -> None:
    """Writes all files of the set except the shards beside the parts, and completes the report."""
    folder = posixpath.dirname(staged_path(job, REPORT_NAME))
    _write_rows_without_record(storage, spooled.summaries, job, folder=folder)
    files = [ShardFile(placement.paths, placement.part.records) for placement in placed]
    with digest_table(spooled.contents(), folder=temporary_folder(job)) as digests:
        images = ImagesOfSet(digests, files, storage=storage, folder=temporary_folder(job))
        report["duplicates"] = report_duplicates(
            images,
            path=staged_path(job, DUPLICATES_NAME),
            called=sidecar_path(job.output_prefix, DUPLICATES_NAME),
        )
        report["shared_with"] = report_shared(
            images,
            path=staged_path(job, SHARED_NAME),
            called=sidecar_path(job.output_prefix, SHARED_NAME),
            others=job.against,
        )
    shards_only = (
        dataclasses.replace(result, shard=final.shard, failed_ledger=None, skipped_ledger=None)
        for result, final in zip(spooled.whole(), finals, strict=True)
    )
    _write_results(staged_path(job, JOURNAL_NAME), shards_only, storage)
    manifest = Manifest(
        backbone=finals[0].backbone,
        labels=job.labels,
        compression=job.compression,
        records=report["embedded"],
        shards=shards,
        views=job.views,
    )
    write_file(storage, staged_path(job, MANIFEST_NAME), manifest.to_bytes())
    names = [JOURNAL_NAME, FAILED_NAME, SKIPPED_NAME, MANIFEST_NAME]
    if report["duplicates"]["file"]:
        names.append(DUPLICATES_NAME)
    if any(entry["file"] for entry in report["shared_with"]):
        names.append(SHARED_NAME)
    report[FILES] = {}
    for name in names:
        # By name, not by listing the folder: another attempt at this step may have deleted a file. That must be an
        # error here, and not look as if the set had no such file.
        num_bytes, sha256 = digest_of(staged_path(job, name), storage)
        report[FILES][name] = {"num_bytes": num_bytes, "sha256": sha256}
    write_file(storage, staged_path(job, REPORT_NAME), _json_bytes(report))


def _finished_report(job: Job, storage: Storage) -> dict[str, Any] | None:
    """The report of the set, if it was this run that finished it."""
    try:
        _, report = read_finished(job.output_prefix, storage)
    except InputError:
        return None
    return report if report.get("run_id") == job.run_id else None


def _require_one_arithmetic(results: Sequence[BlockResult]) -> None:
    backbones: set[BackboneIdentity] = {result.backbone for result in results}
    if any(not backbone.agrees_with(results[0].backbone) for backbone in backbones):
        raise JobFailed(f"The workers did not all use the same backbone: {backbones}")
    for result in results:
        if differs := differences(results[0].engine, result.engine):
            raise JobFailed(
                f"The rows were not all embedded with the same arithmetic and libraries ({'; '.join(differs)}). Give "
                "the same command again: what differs is embedded anew."
            )


def _write_rows_without_record(storage: Storage, results: Sequence[BlockResult], job: Job, *, folder: str) -> None:
    """Joins the blocks' lists of failed and of skipped rows. A file is empty if there are no such rows."""
    for name, parts in (
        (FAILED_NAME, [result.failed_ledger for result in results]),
        (SKIPPED_NAME, [result.skipped_ledger for result in results]),
    ):
        paths = [own_path(job.output_prefix, part.name, where=part.name) for part in parts if part is not None]
        with storage.create(posixpath.join(folder, name)) as stream:
            for rows in map_in_order(storage.read, paths, at_once=_READS_AT_ONCE):
                stream.write(rows)


def _write_results(path: str, results: Iterable[BlockResult], storage: Storage) -> None:
    with storage.create(path) as stream:
        for result in results:
            stream.write(result.to_json_line())


def _json_bytes(data: Any) -> bytes:
    return json_line(data, indent=2)
