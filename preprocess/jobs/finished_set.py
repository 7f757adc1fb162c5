"""Finds out whether the set at a prefix is finished and undamaged, from its manifest, report and files."""

from __future__ import annotations

import concurrent.futures
import glob
import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from preprocess.jobs.report import COMPLETE
from preprocess.jobs.set_files import digest_of, in_folder_of, read_block_results
from preprocess.records.record_set import MANIFEST_NAME, REPORT_NAME, Manifest, sidecar_dir, sidecar_path
from preprocess.storage.base import Storage, read_file

# Object stores take 100 ms or more for each request.
_READS_AT_ONCE = 16
FILES = "files"
"""The field of a report with the size and digest of each other sidecar file of the set, also of the manifest."""


def read_finished(prefix: str, storage: Storage) -> tuple[Manifest, dict[str, Any]]:
    """Reads the manifest and the report of a finished set.

    Args:
      prefix: of the set.
      storage: where it lies.

    Raises:
      InputError: the set is not finished: one of the two is missing or damaged, or they do not agree.
      OSError: storage failed.
    """
    manifest_path, report_path = (sidecar_path(prefix, name) for name in (MANIFEST_NAME, REPORT_NAME))
    try:
        raw = read_file(storage, manifest_path)
        manifest = Manifest.from_bytes(raw, where=manifest_path)
        report = json.loads(read_file(storage, report_path))
        written = report.get(FILES, {}).get(MANIFEST_NAME)
        if written is not None:
            agrees = written["sha256"] == hashlib.sha256(raw).hexdigest()
        else:  # The report of an earlier version.
            agrees = report["embedded"] == manifest.records and report["output"]["shards"] == len(manifest.shards)
        agrees = agrees and report["status"] == COMPLETE
    except FileNotFoundError as error:
        raise InputError(f"{error.filename or error} is not there") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{report_path} is damaged") from error
    if not agrees:
        raise InputError(f"{report_path} is not that of the set's manifest")
    return manifest, report


def find_damage(prefix: str, storage: Storage, *, digests: bool) -> list[str]:
    """The faults of a set that has a manifest, in words; empty if it is undamaged.

    Args:
      prefix: of the set.
      storage: where it lies.
      digests: read every file and compare its digest; otherwise compare only the sizes of the shards, in one listing.

    Raises:
      OSError: storage failed.
    """
    try:
        manifest, report = read_finished(prefix, storage)
    except InputError as error:
        return [str(error)]
    files = report.get(FILES, {})  # Reports of earlier versions have none.
    found = [*_wrong_sizes(prefix, manifest, files if digests else {}, storage)]
    if not digests or found:
        return found
    wanted = {in_folder_of(prefix, shard.name): shard.sha256 for shard in manifest.shards}
    wanted |= {sidecar_path(prefix, name): entry["sha256"] for name, entry in files.items()}
    with concurrent.futures.ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        for path, (_, sha256) in zip(wanted, threads.map(lambda path: digest_of(path, storage), wanted), strict=True):
            if sha256 != wanted[path]:
                found.append(f"{path} is not what its set's manifest says (another SHA-256)")
    return found or [*_wrong_blocks(prefix, manifest, storage)]


def _wrong_sizes(prefix: str, manifest: Manifest, files: Mapping[str, Any], storage: Storage) -> Iterator[str]:
    sizes = storage.sizes(f"{glob.escape(prefix)}-*")
    if files:
        sizes |= storage.sizes(f"{glob.escape(sidecar_dir(prefix))}/*")
    wanted = {in_folder_of(prefix, shard.name): shard.num_bytes for shard in manifest.shards}
    wanted |= {sidecar_path(prefix, name): entry["num_bytes"] for name, entry in files.items()}
    for path, num_bytes in wanted.items():
        if path not in sizes:
            yield f"{path} is not there"
        elif sizes[path] != num_bytes:
            yield f"{path} has {counted(sizes[path], 'byte')}, its set's manifest says {num_bytes}"


def _wrong_blocks(prefix: str, manifest: Manifest, storage: Storage) -> Iterator[str]:
    """The faults of the blocks' results: they must name the shards of the manifest."""
    try:
        of_blocks = [
            (posixpath.basename(result.shard.name), result.shard.sha256)
            for result in read_block_results(prefix, storage)
            if result.shard is not None
        ]
    except InputError as error:
        yield str(error)
        return
    if of_blocks != [(shard.name, shard.sha256) for shard in manifest.shards]:
        yield f"{sidecar_dir(prefix)}: the results of the blocks are not those of the manifest's shards"
