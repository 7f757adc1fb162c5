"""Writes the sets of an import, with report and manifest as `pipelines.embed` writes them."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import os
import posixpath
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from pipelines.bottlenecks.options import ImportOptions
from pipelines.bottlenecks.survey import BottleneckItem, read_bottleneck, read_bytes
from pipelines.checks.output_claim import Claim, Output, check_prefix, locked
from pipelines.embedding.summary import print_summary
from preprocess.engines.base import EngineInfo
from preprocess.images.class_folders import is_utf8
from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES
from preprocess.jobs.block_results import IMPORTED, BlockResult
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import JobFailed, finish_record_set
from preprocess.jobs.job import Job
from preprocess.jobs.journal import JournalUnusable, commit_journal, discard_journal, tidy
from preprocess.jobs.report import COMPLETE
from preprocess.lists.blocks import RowBlock, into_blocks
from preprocess.lists.outcomes import RowFailure
from preprocess.lists.rows import Row
from preprocess.locks.output_lock import fenced
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.record_set import sidecar_dir
from preprocess.storage.base import Storage

_ROWS_PER_SHARD = 1024


@dataclasses.dataclass(frozen=True)
class _Importer:
    """Stands for the engine that made the embeddings: nothing is known of it but what the names say."""

    identity: BackboneIdentity
    info: EngineInfo


def write_set(
    split: str,
    items: Sequence[BottleneckItem],
    labels: tuple[str, ...],
    identity: BackboneIdentity,
    options: ImportOptions,
    storage: Storage,
) -> None:
    """Writes one set, with report and manifest as `pipelines.embed` writes them, or says that it is there."""
    prefix = set_prefix(options, split)
    check_prefix(prefix)
    definition = _definition(items, labels, identity, options)
    job = Job(
        definition=definition,
        run_id=uuid.uuid4().hex[:12],
        output_prefix=prefix,
        compression=options.compression,
        labels=labels,
        input_paths=(options.bottleneck_dir,),
        input_sha256=(definition["bottlenecks"],),
        rows_expected=len(items),
        started=datetime.datetime.now(datetime.UTC),
        versions={"python": sys.version.split()[0], "numpy": importlib.metadata.version("numpy")},
        against=() if split == "train" else (set_prefix(options, "train"),),
    )
    info = EngineInfo(
        engine="retrain.py",
        precision="float32",
        device="unknown",
        fidelity=None,
        why="the embeddings were read from bottlenecks",
    )
    with locked(job, storage) as lock:
        storage = fenced(storage, lock)
        output = Output(job, storage)
        claim = output.claim(overwrite=options.overwrite)
        if claim is Claim.DONE:
            print(f"{prefix}: this very job has finished this set of records; nothing to do.")
            return
        try:
            report = None
            if claim is Claim.JOURNALED:
                try:
                    report = commit_journal(job, storage)
                except JournalUnusable:
                    discard_journal(job, storage)
                    output = Output(job, storage)
                    claim = output.claim(overwrite=options.overwrite)
            if report is None:
                storage.delete_tree(job.parts_dir)  # Reading text again is faster than finding what can be kept.
                output.prepare(claim=Claim.NEW, overwrite=options.overwrite)
                blocks = into_blocks(
                    _rows(items, labels, identity.embedding_size, options),
                    list_index=0,
                    list_path=options.bottleneck_dir,
                    rows_per_block=_ROWS_PER_SHARD,
                )
                by_line = dict(enumerate(items, start=1))
                write = functools.partial(_write_block, by_line, _Importer(identity, info), job, options, storage)
                report = finish_record_set([write(block) for block in blocks], job=job, storage=storage)
        except (OSError, JobFailed) as error:
            raise InputError(
                f"--output_dir: {prefix} cannot be written ({error}). Give the same command again."
            ) from error
        complete = report["status"] == COMPLETE
        print_summary(report, prefix, sidecars=sidecar_dir(prefix) if complete else job.parts_dir, storage=storage)
        if not complete:
            raise InputError(f"{prefix}: {report['error']} The table above says why. Correct what is wrong.")
        tidy(job, storage)


def set_prefix(options: ImportOptions, split: str) -> str:
    """The prefix of one of the sets."""
    return posixpath.join(options.output_dir, split)


def _definition(
    items: Sequence[BottleneckItem], labels: tuple[str, ...], identity: BackboneIdentity, options: ImportOptions
) -> dict[str, Any]:
    content = hashlib.sha256()
    for item in items:
        content.update(f"{item.file.path}\0".encode("utf-8", "surrogateescape") + item.sha256)
    return {
        "bottlenecks": content.hexdigest(),
        "input_dict": list(labels),
        "network": identity.network,
        "image_dir": options.image_dir,
        "compression": options.compression,
        "rows_per_shard": _ROWS_PER_SHARD,
    }


def _rows(items: Sequence[BottleneckItem], labels: tuple[str, ...], size: int, options: ImportOptions) -> Iterator[Row]:
    ids = {name: position for position, name in enumerate(labels)}
    for line, item in enumerate(items, start=1):
        file, outcome = item.file, item.outcome
        if outcome is None and item.size != size:
            message = f"{file.path}: has {item.size} numbers, and an embedding of {size} is wanted"
            outcome = RowFailure("parse", "wrong_size", message)
        uri = f"{file.label}/{file.image}" if file.image else file.path
        if file.image and options.image_dir is not None:
            uri = posixpath.join(options.image_dir, uri)
        if outcome is None and not is_utf8(uri):
            outcome = RowFailure("parse", "bad_uri", f"{file.path!r}: its name is not UTF-8")
        if not is_utf8(uri):
            uri = os.fsencode(uri).decode("utf-8", "backslashreplace")
        names = (file.label,) if file.label in ids else ()
        yield Row(uri, names, tuple(ids[name] for name in names), line, outcome)


def _write_block(
    by_line: Mapping[int, BottleneckItem],
    importer: _Importer,
    job: Job,
    options: ImportOptions,
    storage: Storage,
    block: RowBlock,
) -> BlockResult:
    writer = BlockWriter(block, storage=storage, parts_dir=job.parts_dir, compression=job.compression, engine=importer)
    try:
        for row in block.rows:
            outcome = row.outcome
            if outcome is None:
                item = by_line[row.line]
                try:
                    data, embedding = read_bottleneck(item.file, options)
                    if hashlib.sha256(data).digest() != item.sha256:
                        raise RowFailure("read", "changed", f"{item.file.path}: was changed while it was imported")
                    writer.write_record(
                        row,
                        embedding,
                        image_sha256=(image := _image_digest(row.uri, options)),
                        # Equal numbers are those of one image.
                        content_sha256=image or item.sha256,
                        source=IMPORTED,
                    )
                    continue
                except RowFailure as failure:
                    outcome = failure
            writer.write_outcome(row, outcome)
    except BaseException as error:
        writer.abandon(error)
        raise
    return writer.finish()


def _image_digest(uri: str, options: ImportOptions) -> bytes:
    """The SHA-256 of a photo, 32 bytes; empty if nobody said where the photos are, or if it cannot be read there."""
    if options.image_dir is None:
        return b""
    try:
        return hashlib.sha256(read_bytes(uri, DEFAULT_MAX_IMAGE_BYTES)).digest()
    except RowFailure:
        return b""
