"""Makes a finished set of records out of what the blocks left behind: names, ledgers, books, manifest.

The order of the steps is what makes every stop harmless. Before the first file moves, a plan (the results of all
blocks) is written beside the parts: whoever finds it can finish the set without embedding anything. The manifest of an
older set goes next and the new one comes last, so whatever lies between is without one. Each step can be done twice.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

from preprocess.backbone_identity import BackboneIdentity
from preprocess.block_results import BlockResult, PartFile, join_content
from preprocess.content_report import report_duplicates, report_shared
from preprocess.job import DEFINITION_NAME, PLAN_NAME, Job
from preprocess.made_with import differences
from preprocess.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SKIPPED_NAME,
    Manifest,
    Shard,
    set_of_shard,
    shard_name,
    sidecar_dir,
    sidecar_path,
)
from preprocess.set_files import in_folder_of
from preprocess.set_report import COMPLETE, make_report
from preprocess.storage import Storage, read_file, write_file

# Object stores take 100 ms or more for each.
_MOVES_AT_ONCE = 16


class JobFailed(RuntimeError):  # noqa: N818 (what it says is what happened)
    """The job ran to its end, and its report says that it failed."""


def plan_path(job: Job) -> str:
    """Where the plan of a job lies once all its blocks are done."""
    return posixpath.join(job.parts_dir, PLAN_NAME)


def finish_record_set(results: Iterable[BlockResult], *, job: Job, storage: Storage) -> dict[str, Any]:
    """Finishes a set: shards under their final names, ledgers, report, and last the manifest.

    If nothing was embedded, too many rows failed or the books do not balance (rows read = embedded + failed +
    skipped, in each block and in all, and as many rows as were counted before the start), nothing of the set is
    touched: ledgers and report are left in the job's folder of parts, and with them the parts, for a later run.

    Args:
      results: of all blocks, in any order.
      job: the job.
      storage: where the parts lie and the set is to lie.

    Returns:
      The report, as written to `report.json`.

    Raises:
      OSError: storage failed; the set has no manifest then.
      JobFailed: workers used different backbones, precisions or libraries, or a part is gone.
    """
    already = _finished_report(job, storage)
    if already is not None:
        return already  # Runners may run the last step twice.
    results = sorted(results, key=lambda result: result.order)
    _require_one_arithmetic(results)
    planned = _with_final_names(results, job)
    shards = tuple(
        Shard(
            name=posixpath.basename(result.shard.path),
            records=result.shard.records,
            num_bytes=result.shard.num_bytes,
            sha256=result.shard.sha256,
        )
        for result in planned
        if result.shard is not None
    )
    report = make_report(results, job=job, shards=shards)
    if report["status"] != COMPLETE:
        _write_ledgers(storage, results, folder=job.parts_dir)
        write_file(storage, posixpath.join(job.parts_dir, REPORT_NAME), _json_bytes(report))
        return report
    write_file(storage, plan_path(job), b"".join(result.to_json_line() for result in results))
    storage.delete_file(sidecar_path(job.output_prefix, MANIFEST_NAME))
    _move_shards(storage, results, planned)
    _delete_other_shards(storage, job, {shard.name for shard in shards})
    _write_ledgers(storage, results, folder=sidecar_dir(job.output_prefix))
    content = join_content(planned)
    report["duplicates"] = report_duplicates(content, shards, prefix=job.output_prefix, storage=storage)
    report["shared_with"] = report_shared(
        content, shards, prefix=job.output_prefix, others=job.against, storage=storage
    )
    without_ledgers = (dataclasses.replace(result, failed_ledger=None, skipped_ledger=None) for result in planned)
    write_file(
        storage,
        sidecar_path(job.output_prefix, PLAN_NAME),
        b"".join(result.to_json_line() for result in without_ledgers),
    )
    write_file(storage, sidecar_path(job.output_prefix, REPORT_NAME), _json_bytes(report))
    manifest = Manifest(
        backbone=results[0].backbone,
        labels=job.labels,
        compression=job.compression,
        records=report["embedded"],
        shards=shards,
    )
    write_file(storage, sidecar_path(job.output_prefix, MANIFEST_NAME), manifest.to_bytes())
    _delete_parts(storage, job)
    return report


def _delete_parts(storage: Storage, job: Job) -> None:
    """Deletes what the set was made from; a folder does not go at once, so first what says that there is work in it."""
    storage.delete_file(plan_path(job))
    storage.delete_file(posixpath.join(job.parts_dir, DEFINITION_NAME))
    storage.delete_tree(job.parts_dir)


def _finished_report(job: Job, storage: Storage) -> dict[str, Any] | None:
    """The report of the set, if this very run has finished it."""
    try:
        read_file(storage, sidecar_path(job.output_prefix, MANIFEST_NAME))
        report: dict[str, Any] = json.loads(read_file(storage, sidecar_path(job.output_prefix, REPORT_NAME)))
    except (FileNotFoundError, ValueError):
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


def _with_final_names(results: Sequence[BlockResult], job: Job) -> list[BlockResult]:
    """The results with the shards where the finished set has them."""
    prefix_name = posixpath.basename(job.output_prefix)
    count = sum(result.shard is not None for result in results)
    planned = []
    index = 0
    for result in results:
        if result.shard is not None:
            name = shard_name(prefix_name, index, count, job.compression)
            shard = dataclasses.replace(result.shard, path=in_folder_of(job.output_prefix, name))
            result = dataclasses.replace(result, shard=shard)
            index += 1
        planned.append(result)
    return planned


def _move_shards(storage: Storage, results: Sequence[BlockResult], planned: Sequence[BlockResult]) -> None:
    moves = [
        (result.shard, final.shard.path)
        for result, final in zip(results, planned, strict=True)
        if result.shard is not None and final.shard is not None and result.shard.path != final.shard.path
    ]
    with concurrent.futures.ThreadPoolExecutor(_MOVES_AT_ONCE) as pool:
        # Listed, so that what one of them raises is raised.
        list(pool.map(lambda move: _move(storage, *move), moves))


def _move(storage: Storage, part: PartFile, target: str) -> None:
    try:
        storage.move(part.path, target)
    except FileNotFoundError as error:
        # Moved already by a run that did not get to its end? Then it is there, byte for byte.
        if not storage.match(target) or hashlib.sha256(read_file(storage, target)).hexdigest() != part.sha256:
            raise JobFailed(
                f"{part.path} is gone, and {target} is not what it held. Run the job again with --overwrite."
            ) from error


def _delete_other_shards(storage: Storage, job: Job, names: set[str]) -> None:
    for path in storage.match(f"{job.output_prefix}-*"):
        if set_of_shard(path) == job.output_prefix and posixpath.basename(path) not in names:
            storage.delete_file(path)


def _write_ledgers(storage: Storage, results: Sequence[BlockResult], *, folder: str) -> None:
    """Joins the blocks' ledgers; an empty one says that there was nothing to enter."""
    for name, parts in (
        (FAILED_NAME, [result.failed_ledger for result in results]),
        (SKIPPED_NAME, [result.skipped_ledger for result in results]),
    ):
        with storage.create(posixpath.join(folder, name)) as ledger:
            for part in parts:
                if part is not None:
                    ledger.write(read_file(storage, part.path))


def _json_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
