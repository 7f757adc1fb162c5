"""The journal of a set: written when all blocks are done, it says from which files the set is made.

Before a job changes anything of an older set, it has read and checked all parts, and it has written all files of the
new set except the shards into its folder of parts. It writes the journal (the results of all blocks) there last. A
later run that finds the journal can make the set by moving and copying files alone. Each step can be done twice, also
by two processes at once. It changes only the files that the journal or the list of replaced files names.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import json
import posixpath
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from preprocess.jobs.block_results import BlockResult, PartFile
from preprocess.jobs.duplicates_report import DUPLICATES_NAME, SHARED_NAME
from preprocess.jobs.finished_set import FILES
from preprocess.jobs.job import DEFINITION_NAME, JOURNAL_NAME, RESULT_SUFFIX, Job
from preprocess.jobs.made_with import RECORD_NAME
from preprocess.jobs.set_files import digest_of, in_folder_of, own_path, read_results_file
from preprocess.jobs.stored_results import kept_result_path
from preprocess.machine.run_note import NOTE_NAME
from preprocess.records.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SKIPPED_NAME,
    Manifest,
    set_of_shard,
    shard_name,
    sidecar_dir,
    sidecar_path,
)
from preprocess.storage.base import Storage, read_file, write_file
from preprocess.storage.uris import has_scheme

REPLACED_NAME = "replaced.json"
_STAGED = "set"
# Without the report and the manifest, which are written after them.
_SIDECARS = (JOURNAL_NAME, FAILED_NAME, SKIPPED_NAME, DUPLICATES_NAME, SHARED_NAME)
# Object stores take 100 ms or more for each.
_AT_ONCE = 32
_COPY_BYTES = 1 << 20


class JournalUnusable(RuntimeError):  # noqa: N818 (the name says what is wrong)
    """The set cannot be made from its journal: a file is missing, or it differs from what was written."""


def journal_path(job: Job) -> str:
    """The path of a job's journal, which exists once all its blocks are done."""
    return posixpath.join(job.parts_dir, JOURNAL_NAME)


def staged_path(job: Job, name: str) -> str:
    """The path of a file of the sidecar folder until the set is made."""
    return posixpath.join(job.parts_dir, _STAGED, name)


def note_replaced(job: Job, storage: Storage, *, jobs: Iterable[str]) -> None:
    """Writes a list of what is deleted once the set is finished: shards that are at its prefix now, and other jobs.

    Nothing that is not on this list is deleted later. So files that another run writes in the meantime stay.

    Args:
      job: the job.
      storage: where the set lies.
      jobs: keys of other jobs whose unfinished work is to be deleted.
    """
    found = storage.match(f"{glob.escape(job.output_prefix)}-*")
    shards = [path for path in found if set_of_shard(path) == job.output_prefix]
    noted = {"shards": [posixpath.basename(path) for path in shards], "jobs": sorted(jobs)}
    write_file(storage, posixpath.join(job.parts_dir, REPLACED_NAME), json.dumps(noted).encode())


def with_final_names(results: Sequence[BlockResult], job: Job) -> list[BlockResult]:
    """The results, with the names that the shards have in the finished set."""
    prefix_name = posixpath.basename(job.output_prefix)
    count = sum(result.shard is not None for result in results)
    finals = []
    index = 0
    for result in results:
        if result.shard is not None:
            name = shard_name(prefix_name, index, count, job.compression)
            result = dataclasses.replace(result, shard=dataclasses.replace(result.shard, name=name))
            index += 1
        finals.append(result)
    return finals


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """The path of a shard now, and its path in the finished set.

    Attributes:
      part: the shard as its block wrote it.
      source: the path at which the block wrote it.
      aside: a path for the time in between, if the shard changes its name within the set; otherwise `source`.
      target: its path in the finished set.
    """

    part: PartFile
    source: str
    aside: str
    target: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths at which the shard may be found, in the order in which it is moved through them."""
        return tuple(dict.fromkeys((self.source, self.aside, self.target)))


def placements(results: Sequence[BlockResult], job: Job) -> list[Placement]:
    """The placements of the shards of all blocks, in order.

    Raises:
      InputError: a result names a file that does not belong to the set.
      JournalUnusable: two results name the same file.
    """
    found = []
    for result, final in zip(results, with_final_names(results, job), strict=True):
        if result.shard is None or final.shard is None:
            continue
        source = own_path(job.output_prefix, result.shard.name, where=journal_path(job))
        target, aside = in_folder_of(job.output_prefix, final.shard.name), source
        if source != target and set_of_shard(source) == job.output_prefix:
            # Another shard of the new set may get the name that this one has now, and must not overwrite it.
            aside = posixpath.join(job.parts_dir, f"kept-{result.shard.sha256[:32]}-{posixpath.basename(source)}")
        found.append(Placement(result.shard, source, aside, target))
    if len({placement.source for placement in found}) < len(found):
        raise JournalUnusable(f"{journal_path(job)}: two blocks name the same shard")
    return found


class Files:
    """The sizes of the files of a set and of its parts, listed once at the start. Digests are read on request."""

    def __init__(self, job: Job, storage: Storage):
        self._storage = storage
        self._sizes = storage.sizes(f"{glob.escape(job.output_prefix)}-*")
        self._sizes |= storage.sizes(f"{glob.escape(job.parts_dir)}/*")

    def has(self, path: str, part: PartFile, *, digest: bool) -> bool:
        """Whether a file existed with the size of a part and, if `digest` is true, has the digest of the part."""
        return self._sizes.get(path) == part.num_bytes and (not digest or self.is_now(path, part))

    def is_now(self, path: str, part: PartFile) -> bool:
        """Whether a file exists at this moment and is byte for byte equal to a part."""
        try:
            return digest_of(path, self._storage) == (part.num_bytes, part.sha256)
        except FileNotFoundError:
            return False

    def describe(self, path: str, part: PartFile) -> str:
        """Says in words what is wrong with a part."""
        if path not in self._sizes:
            return f"{path} is gone"
        if self._sizes[path] != part.num_bytes:
            return f"{path} has {counted(self._sizes[path], 'byte')}, {part.num_bytes} were written"
        return f"{path} is not what was written (another SHA-256)"


def require_parts(results: Sequence[BlockResult], job: Job, storage: Storage, *, of_this_run: bool) -> list[Placement]:
    """Makes sure that all files exist from which a set is made.

    Args:
      results: of all blocks, in order.
      job: the job.
      storage: where the files lie.
      of_this_run: this run wrote the blocks, or compared their digests. Then it is enough to compare sizes, and the
        blocks' lists of failed and skipped rows must exist too. Otherwise digests are compared on local disks, because
        a power cut may have damaged the files. Object stores check their objects by themselves.

    Returns:
      The placements of the shards.

    Raises:
      InputError: a result names a file that does not belong to the set.
      JournalUnusable: a file is missing, or it is not what was written.
    """
    files = Files(job, storage)
    found = placements(results, job)
    by_digest = not of_this_run and not has_scheme(job.output_prefix)

    def fault_of(placement: Placement) -> str | None:
        if files.has(placement.source, placement.part, digest=by_digest):
            return None
        # An earlier run may have moved it before it was stopped. Then it exists, byte for byte.
        if any(files.has(path, placement.part, digest=True) for path in placement.paths[1:]):
            return None
        # Another attempt at the last step may be moving it at this moment.
        if any(files.is_now(path, placement.part) for path in placement.paths):
            return None
        return files.describe(placement.source, placement.part)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        faults = [fault for fault in threads.map(fault_of, found) if fault is not None]
    if of_this_run:
        for result in results:
            for part in (result.failed_ledger, result.skipped_ledger):
                if part is not None:
                    path = own_path(job.output_prefix, part.name, where=journal_path(job))
                    if not files.has(path, part, digest=False):
                        faults.append(files.describe(path, part))
    if faults:
        raise JournalUnusable(faults[0])
    return found


def commit_journal(job: Job, storage: Storage) -> dict[str, Any]:
    """Makes the set from a journal that an earlier run left.

    Returns:
      The report, as written to `report.json`.

    Raises:
      OSError: storage failed.
      JournalUnusable: the journal, or a file that it names, is missing or was changed; nothing was touched.
    """
    try:
        journal = read_results_file(journal_path(job), job.output_prefix, storage)
        results = [result.summary() for result in journal]
        placed = require_parts(results, job, storage, of_this_run=False)
        report = _read_staged(job, storage)
        path = staged_path(job, MANIFEST_NAME)
        manifest = Manifest.from_bytes(read_file(storage, path), where=path)
        finals = [final.shard for final in with_final_names(results, job) if final.shard is not None]
        if [(shard.name, shard.sha256) for shard in manifest.shards] != [
            (shard.name, shard.sha256) for shard in finals
        ]:
            raise JournalUnusable(f"{path} is not the manifest of what {journal_path(job)} names")
    except InputError as error:
        raise JournalUnusable(str(error)) from error
    make_set(results, placed, job=job, storage=storage)
    return report


def discard_journal(job: Job, storage: Storage) -> None:
    """Deletes a journal. The parts beside it are then the unfinished work of the job again."""
    storage.delete_file(journal_path(job))


def _read_staged(job: Job, storage: Storage) -> dict[str, Any]:
    """Reads the report of a set that is not made yet, and checks the files that it names against their digests."""
    path = staged_path(job, REPORT_NAME)
    try:
        report: dict[str, Any] = json.loads(read_file(storage, path))
        files: Mapping[str, Any] = report[FILES]
        for name, entry in files.items():
            if name not in (*_SIDECARS, MANIFEST_NAME):
                raise JournalUnusable(f"{path} names {name!r}, which is no file of a set")
            if digest_of(staged_path(job, name), storage) != (entry["num_bytes"], entry["sha256"]):
                raise JournalUnusable(f"{staged_path(job, name)} is not what was written")
    except FileNotFoundError as error:
        raise JournalUnusable(f"{error.filename or error} is gone") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalUnusable(f"{path} is damaged") from error
    return report


def make_set(results: Sequence[BlockResult], placed: Sequence[Placement], *, job: Job, storage: Storage) -> None:
    """Makes the set: deletes the older manifest, moves the shards, and writes the new manifest last.

    Args:
      results: of all blocks, in order, as in the journal.
      placed: their shards, as `require_parts` found them.
      job: the job.
      storage: where the parts and the set lie.

    Raises:
      OSError: storage failed; FileNotFoundError if a file that was written for the set is missing.
      JournalUnusable: a shard is missing.
    """
    manifest = read_file(storage, staged_path(job, MANIFEST_NAME))
    report = read_file(storage, staged_path(job, REPORT_NAME))
    staged: Mapping[str, Any] = json.loads(report)[FILES]
    target = sidecar_path(job.output_prefix, MANIFEST_NAME)
    if _read_if_there(target, storage) != manifest:
        # From here to the end the set has no manifest, and the journal says how to go on. If the new manifest is
        # already there, another attempt at this step may have finished the set. That must not be undone.
        storage.delete_file(target)
    _place(placed, job, storage)
    replaced = _read_replaced(job, storage)
    finals = {placement.target for placement in placed}
    for name in replaced["shards"]:
        path = in_folder_of(job.output_prefix, name)
        if "/" not in name and set_of_shard(path) == job.output_prefix and path not in finals:
            storage.delete_file(path)
    for name in _SIDECARS:
        path = sidecar_path(job.output_prefix, name)
        if name not in staged:
            storage.delete_file(path)
            continue
        try:
            _copy(staged_path(job, name), path, storage)
        except FileNotFoundError:
            # Another attempt at this step may have finished meanwhile. Then the copy exists.
            if digest_of(path, storage) != (staged[name]["num_bytes"], staged[name]["sha256"]):
                raise
    write_file(storage, sidecar_path(job.output_prefix, REPORT_NAME), report)
    write_file(storage, target, manifest)
    with contextlib.suppress(OSError):  # The set is finished; the next command deletes what is left over.
        _delete_work(results, placed, replaced["jobs"], job, storage)


def _place(placed: Sequence[Placement], job: Job, storage: Storage) -> None:
    """Moves all shards to their final paths. First it sets aside those that change their names within the set."""
    files = Files(job, storage)

    def move(source: str, target: str, placement: Placement) -> None:
        try:
            storage.move(source, target)
        except FileNotFoundError as error:
            # Another attempt at this step may have moved it at this moment.
            if not any(files.is_now(path, placement.part) for path in placement.paths[1:]):
                raise JournalUnusable(files.describe(placement.source, placement.part)) from error

    def set_aside(placement: Placement) -> None:
        arrived = any(files.has(path, placement.part, digest=True) for path in placement.paths[1:])
        if placement.aside == placement.source or arrived:
            return
        if not files.is_now(placement.source, placement.part):
            raise JournalUnusable(files.describe(placement.source, placement.part))
        move(placement.source, placement.aside, placement)

    def settle(placement: Placement) -> None:
        if placement.aside != placement.target and not files.has(placement.target, placement.part, digest=True):
            move(placement.aside, placement.target, placement)

    _for_each(set_aside, placed)
    _for_each(settle, placed)


def _for_each(function: Callable[[Any], None], items: Iterable[Any]) -> None:
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(function, items):
            pass  # Iterating raises what a thread raised.


def _delete_work(
    results: Sequence[BlockResult], placed: Sequence[Placement], jobs: Iterable[str], job: Job, storage: Storage
) -> None:
    """Deletes the parts of the set and the work that it replaces. The journals and the definitions of jobs go first."""
    for key in jobs:
        folder = posixpath.join(sidecar_dir(job.output_prefix), f"parts-{key}")
        for name in (JOURNAL_NAME, DEFINITION_NAME):
            storage.delete_file(posixpath.join(folder, name))
        storage.delete_tree(folder)
    for path in (journal_path(job), posixpath.join(job.parts_dir, DEFINITION_NAME)):
        storage.delete_file(path)
    kept = {placement.target for placement in placed}
    own = {
        own_path(job.output_prefix, part.name, where=journal_path(job)) for result in results for part in result.parts
    }
    own |= {placement.aside for placement in placed}
    own = {path for path in own - kept if posixpath.dirname(path) == job.parts_dir}
    own |= {
        f"{posixpath.join(job.parts_dir, posixpath.basename(path).partition('.')[0])}{RESULT_SUFFIX}" for path in own
    }
    own |= {kept_result_path(job, result) for result in results if not _is_part(result.shard, job)}
    _for_each(storage.delete_file, sorted(own))
    storage.delete_tree(posixpath.join(job.parts_dir, _STAGED))
    for name in (REPLACED_NAME, RECORD_NAME, NOTE_NAME, REPORT_NAME, FAILED_NAME, SKIPPED_NAME):
        storage.delete_file(posixpath.join(job.parts_dir, name))
    if not storage.match(posixpath.join(glob.escape(job.parts_dir), "*")):
        storage.delete_tree(job.parts_dir)


def _is_part(shard: PartFile | None, job: Job) -> bool:
    """Whether a shard is one of this job, and was not in the set before."""
    return shard is not None and f"/{posixpath.basename(job.parts_dir)}/" in shard.name


def tidy(job: Job, storage: Storage) -> None:
    """Deletes the remaining files of a job whose set is finished. The caller holds the lock of the output."""
    with contextlib.suppress(OSError):
        for name in (JOURNAL_NAME, DEFINITION_NAME):
            storage.delete_file(posixpath.join(job.parts_dir, name))
        storage.delete_tree(job.parts_dir)


def _read_replaced(job: Job, storage: Storage) -> dict[str, list[str]]:
    raw = _read_if_there(posixpath.join(job.parts_dir, REPLACED_NAME), storage)
    try:
        data = json.loads(raw or b"{}")
        return {
            "shards": [str(name) for name in data.get("shards", ())],
            "jobs": [key for key in map(str, data.get("jobs", ())) if key.isalnum() and key != job.key],
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {"shards": [], "jobs": []}  # Then more files stay than necessary.


def _read_if_there(path: str, storage: Storage) -> bytes | None:
    try:
        return read_file(storage, path)
    except FileNotFoundError:
        return None


def _copy(source: str, target: str, storage: Storage) -> None:
    with storage.open(source) as stream, storage.create(target) as copy:
        shutil.copyfileobj(stream, copy, _COPY_BYTES)
