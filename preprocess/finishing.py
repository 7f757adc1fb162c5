"""Makes a finished set of records out of what the blocks left behind: names, ledgers, books, manifest.

The order of the steps is what makes a half-finished set recognizable: the manifest of an older set goes
first and the new one comes last, so whatever lies between is without one.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preprocess.backbone_identity import BackboneIdentity
from preprocess.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SKIPPED_NAME,
    Compression,
    Manifest,
    Shard,
    set_of_shard,
    shard_name,
    sidecar_dir,
    sidecar_path,
)
from preprocess.row_blocks import BlockResult, PartFile
from preprocess.storage import Storage, read_file, write_file

REPORT_FORMAT = 1
COMPLETE = "complete"
NOTHING_EMBEDDED = "nothing_embedded"
BOOKS_DO_NOT_BALANCE = "books_do_not_balance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the program that starts a job knows and its end needs.

    Attributes:
      job_id: unique; names the folder of the job's parts.
      output_prefix: the set to write, for example "out/preproc/train".
      compression: of the shards.
      labels: the dictionary, in order.
      input_paths: the lists.
      rows_expected: rows counted before the start; the job must read as many.
      started: when the job was started, UTC.
      versions: of the software that runs it, for the report.
    """

    job_id: str
    output_prefix: str
    compression: Compression
    labels: tuple[str, ...]
    input_paths: tuple[str, ...]
    rows_expected: int
    started: datetime.datetime
    versions: dict[str, str]

    @property
    def parts_dir(self) -> str:
        """Where blocks leave their files until the set is finished."""
        return f"{sidecar_dir(self.output_prefix)}/parts-{self.job_id}"


class JobFailed(RuntimeError):  # noqa: N818 (what it says is what happened)
    """The job ran to its end, and its report says that it failed."""


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts by name, largest first."""
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _move(storage: Storage, part: PartFile, target: str) -> None:
    try:
        storage.move(part.path, target)
    except FileNotFoundError:
        # Runners may run the last step twice; then the first run has moved the file already.
        if not storage.match(target):
            raise


def _move_shards(storage: Storage, job: Job, parts: Sequence[PartFile]) -> tuple[Shard, ...]:
    directory, prefix_name = posixpath.split(job.output_prefix)
    names = [shard_name(prefix_name, index, len(parts), job.compression) for index in range(len(parts))]
    for path in storage.match(f"{job.output_prefix}-*"):
        if set_of_shard(path) == job.output_prefix and posixpath.basename(path) not in names:
            storage.delete_file(path)
    for part, name in zip(parts, names, strict=True):
        _move(storage, part, posixpath.join(directory, name))
    return tuple(
        Shard(name=name, records=part.records, num_bytes=part.num_bytes, sha256=part.sha256)
        for part, name in zip(parts, names, strict=True)
    )


def _join_ledgers(storage: Storage, parts: Iterable[PartFile | None], target: str) -> None:
    """Writes one ledger of the blocks' ledgers; an empty one says that there was nothing to enter."""
    with storage.create(target) as ledger:
        for part in parts:
            if part is not None:
                ledger.write(read_file(storage, part.path))


def _the_backbone(results: Sequence[BlockResult]) -> BackboneIdentity:
    backbones = {result.backbone for result in results}
    if len(backbones) != 1:
        raise JobFailed(f"The workers did not all use the same backbone: {backbones}")
    return backbones.pop()


def finish_record_set(results: Iterable[BlockResult], *, job: Job, storage: Storage) -> dict[str, Any]:
    """Finishes a set: shards under their final names, ledgers, report, and last the manifest.

    There is no manifest if nothing was embedded or the books do not balance: rows read = embedded + failed
    + skipped, in each block and in all, and as many rows as were counted before the start.

    Args:
      results: of all blocks, in any order.
      job: the job.
      storage: where the parts lie and the set is to lie.

    Returns:
      The report, as written to `report.json`.

    Raises:
      OSError: storage failed; the set has no manifest then.
      JobFailed: workers used different backbones.
    """
    results = sorted(results, key=lambda result: result.order)
    prefix = job.output_prefix
    backbone = _the_backbone(results)
    storage.delete_file(sidecar_path(prefix, MANIFEST_NAME))
    shards = _move_shards(storage, job, [result.shard for result in results if result.shard is not None])
    _join_ledgers(storage, (result.failed_ledger for result in results), sidecar_path(prefix, FAILED_NAME))
    _join_ledgers(storage, (result.skipped_ledger for result in results), sidecar_path(prefix, SKIPPED_NAME))
    report = _report(results, job=job, backbone=backbone, shards=shards)
    write_file(storage, sidecar_path(prefix, REPORT_NAME), _json_bytes(report))
    if report["status"] == COMPLETE:
        manifest = Manifest(
            backbone=backbone,
            labels=job.labels,
            compression=job.compression,
            records=report["embedded"],
            shards=shards,
        )
        write_file(storage, sidecar_path(prefix, MANIFEST_NAME), manifest.to_bytes())
    storage.delete_tree(job.parts_dir)
    return report


def _json_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _books_balance(results: Sequence[BlockResult], shards: Sequence[Shard], rows_expected: int) -> bool:
    return (
        all(
            result.rows == result.embedded + sum(result.failed.values()) + sum(result.skipped.values())
            for result in results
        )
        and sum(result.rows for result in results) == rows_expected
        and sum(shard.records for shard in shards) == sum(result.embedded for result in results)
    )


def _report(
    results: Sequence[BlockResult], *, job: Job, backbone: BackboneIdentity, shards: Sequence[Shard]
) -> dict[str, Any]:
    rows_read = sum(result.rows for result in results)
    embedded = sum(result.embedded for result in results)
    status, error = COMPLETE, None
    if not _books_balance(results, shards, job.rows_expected):
        status = BOOKS_DO_NOT_BALANCE
        error = f"{job.rows_expected} rows were counted before the start, {rows_read} were read."
    elif embedded == 0:
        status, error = NOTHING_EMBEDDED, f"None of {rows_read} rows could be embedded."
    wall_sec = (datetime.datetime.now(datetime.UTC) - job.started).total_seconds()
    label_counts: collections.Counter[int] = collections.Counter()
    for result in results:
        label_counts.update(result.label_counts)
    return {
        "format": REPORT_FORMAT,
        "job_id": job.job_id,
        "status": status,
        "error": error,
        "rows_read": rows_read,
        "embedded": embedded,
        "failed": _sum_counts(result.failed for result in results),
        "skipped": _sum_counts(result.skipped for result in results),
        "records_per_label": {name: label_counts[label_id] for label_id, name in enumerate(job.labels)},
        "records_without_label": sum(result.unlabeled for result in results),
        "started": job.started.isoformat(timespec="seconds"),
        "wall_sec": round(wall_sec, 3),
        "images_per_sec": round(embedded / wall_sec, 3) if wall_sec > 0 else None,
        "read_sec": round(sum(result.read_sec for result in results), 3),
        "decode_sec": round(sum(result.decode_sec for result in results), 3),
        "waited_for_images_sec": round(sum(result.waited_for_images_sec for result in results), 3),
        "waited_for_engine_sec": round(sum(result.waited_for_engine_sec for result in results), 3),
        "backbone": backbone.to_json(),
        # One, unless workers are machines of different kinds.
        "engines": [engine.to_json() for engine in dict.fromkeys(result.engine for result in results)],
        "input": list(job.input_paths),
        "output": {
            "prefix": job.output_prefix,
            "shards": len(shards),
            "num_bytes": sum(shard.num_bytes for shard in shards),
            "compression": job.compression,
        },
        "versions": job.versions,
    }
