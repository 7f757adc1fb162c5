"""The plan of a set whose blocks are all done, and how the set is made of it.

Before anything of an older set is touched, all inputs have been read and checked, and everything that the finished set
holds besides its shards lies written in the job's folder of parts. The plan (the results of all blocks) is written last
there: whoever finds it can make the set by moving and copying alone. Each step can be done twice, also by two at once,
and touches only what the plan names and what was written down to be replaced.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import posixpath
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from preprocess.jobs.block_results import BlockResult, PartFile
from preprocess.jobs.duplicates_report import DUPLICATES_NAME, SHARED_NAME
from preprocess.jobs.finished_set import FILES
from preprocess.jobs.job import DEFINITION_NAME, PLAN_NAME, Job
from preprocess.jobs.made_with import RECORD_NAME
from preprocess.jobs.set_files import RESULT_SUFFIX, digest_of, in_folder_of, own_path, read_results_file
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
_SIDECARS = (PLAN_NAME, FAILED_NAME, SKIPPED_NAME, DUPLICATES_NAME, SHARED_NAME)
# Object stores take 100 ms or more for each.
_AT_ONCE = 16
_COPY_BYTES = 1 << 20


class PlanUnusable(RuntimeError):  # noqa: N818 (what it says is what is wrong)
    """A set cannot be made of what the blocks left: a file is gone or is not what was written."""


def plan_path(job: Job) -> str:
    """Where the plan of a job lies once all its blocks are done."""
    return posixpath.join(job.parts_dir, PLAN_NAME)


def staged_path(job: Job, name: str) -> str:
    """Where a file of the set's sidecar folder lies until the set is made."""
    return posixpath.join(job.parts_dir, _STAGED, name)


def note_replaced(job: Job, storage: Storage, *, jobs: Iterable[str]) -> None:
    """Writes down what is to go once the set is finished: the shards at its prefix now, and the work of other jobs.

    Nothing else is deleted then, so what another run brings in the meantime stays.

    Args:
      job: the job.
      storage: where the set lies.
      jobs: keys of other jobs whose unfinished work goes.
    """
    shards = [path for path in storage.match(f"{job.output_prefix}-*") if set_of_shard(path) == job.output_prefix]
    noted = {"shards": [posixpath.basename(path) for path in shards], "jobs": sorted(jobs)}
    write_file(storage, posixpath.join(job.parts_dir, REPLACED_NAME), json.dumps(noted).encode())


def with_final_names(results: Sequence[BlockResult], job: Job) -> list[BlockResult]:
    """The results with the shards where the finished set has them."""
    prefix_name = posixpath.basename(job.output_prefix)
    count = sum(result.shard is not None for result in results)
    planned = []
    index = 0
    for result in results:
        if result.shard is not None:
            name = shard_name(prefix_name, index, count, job.compression)
            result = dataclasses.replace(result, shard=dataclasses.replace(result.shard, name=name))
            index += 1
        planned.append(result)
    return planned


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Where a shard lies and where it is to lie.

    Attributes:
      part: the shard as its block left it.
      source: its path as the block left it.
      aside: where it waits for its place if it is to change its name within the set; else `source`.
      target: its path in the finished set.
    """

    part: PartFile
    source: str
    aside: str
    target: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Where it may be found, in the order in which it passes them."""
        return tuple(dict.fromkeys((self.source, self.aside, self.target)))


def placements(results: Sequence[BlockResult], job: Job) -> list[Placement]:
    """Where the shards of all blocks lie and are to lie, in order.

    Raises:
      InputError: a result names a file that is not the set's.
      PlanUnusable: two results name the same file.
    """
    found = []
    for result, final in zip(results, with_final_names(results, job), strict=True):
        if result.shard is None or final.shard is None:
            continue
        source = own_path(job.output_prefix, result.shard.name, where=plan_path(job))
        target, aside = in_folder_of(job.output_prefix, final.shard.name), source
        if source != target and set_of_shard(source) == job.output_prefix:
            # Its name may be that of another shard of the new set, which must not be written over it.
            aside = posixpath.join(job.parts_dir, f"kept-{result.shard.sha256[:32]}-{posixpath.basename(source)}")
        found.append(Placement(result.shard, source, aside, target))
    if len({placement.source for placement in found}) < len(found):
        raise PlanUnusable(f"{plan_path(job)}: two blocks name the same shard")
    return found


class Files:
    """Sizes of the files of a set and of its parts, as they were listed when this was made; digests as asked for."""

    def __init__(self, job: Job, storage: Storage):
        self._storage = storage
        self._sizes = storage.sizes(f"{job.output_prefix}-*") | storage.sizes(f"{job.parts_dir}/*")

    def has(self, path: str, part: PartFile, *, digest: bool) -> bool:
        """Whether a file was there with a part's size and, if asked for, has its digest."""
        return self._sizes.get(path) == part.num_bytes and (not digest or self.is_now(path, part))

    def is_now(self, path: str, part: PartFile) -> bool:
        """Whether a file is there at this moment and is, byte for byte, a part."""
        try:
            return digest_of(path, self._storage) == (part.num_bytes, part.sha256)
        except FileNotFoundError:
            return False

    def describe(self, path: str, part: PartFile) -> str:
        """What is wrong with a part, in words."""
        if path not in self._sizes:
            return f"{path} is gone"
        if self._sizes[path] != part.num_bytes:
            return f"{path} has {self._sizes[path]} bytes, {part.num_bytes} were written"
        return f"{path} is not what was written (another SHA-256)"


def require_parts(results: Sequence[BlockResult], job: Job, storage: Storage, *, of_this_run: bool) -> list[Placement]:
    """Makes sure that everything is there that a set is to be made of.

    Args:
      results: of all blocks, in order.
      job: the job.
      storage: where they lie.
      of_this_run: the blocks were written, or their digests compared, in this run: sizes are enough. Ledgers are then
        still needed. Else digests are compared on local disks, which a power cut may have damaged; object stores do
        that by themselves.

    Returns:
      Where the shards are and are to be.

    Raises:
      InputError: a result names a file that is not the set's.
      PlanUnusable: a file is gone or is another.
    """
    files = Files(job, storage)
    found = placements(results, job)
    by_digest = not of_this_run and not has_scheme(job.output_prefix)

    def fault_of(placement: Placement) -> str | None:
        if files.has(placement.source, placement.part, digest=by_digest):
            return None
        # Moved already, by a run that did not get to its end? Then it is there, byte for byte.
        if any(files.has(path, placement.part, digest=True) for path in placement.paths[1:]):
            return None
        # Or at this moment, by another try at the last step.
        if any(files.is_now(path, placement.part) for path in placement.paths):
            return None
        return files.describe(placement.source, placement.part)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        faults = [fault for fault in threads.map(fault_of, found) if fault is not None]
    if of_this_run:
        for result in results:
            for ledger in (result.failed_ledger, result.skipped_ledger):
                if ledger is not None:
                    path = own_path(job.output_prefix, ledger.name, where=plan_path(job))
                    if not files.has(path, ledger, digest=False):
                        faults.append(files.describe(path, ledger))
    if faults:
        raise PlanUnusable(faults[0])
    return found


def finish_planned(job: Job, storage: Storage) -> dict[str, Any]:
    """Makes the set of a plan that an earlier run left.

    Returns:
      The report, as written to `report.json`.

    Raises:
      OSError: storage failed.
      PlanUnusable: the plan, or something that it names, is not what it was; nothing was touched.
    """
    try:
        results = read_results_file(plan_path(job), job.output_prefix, storage)
        require_parts(results, job, storage, of_this_run=False)
        report = _read_staged(job, storage)
        path = staged_path(job, MANIFEST_NAME)
        manifest = Manifest.from_bytes(read_file(storage, path), where=path)
        finals = [final.shard for final in with_final_names(results, job) if final.shard is not None]
        if [(shard.name, shard.sha256) for shard in manifest.shards] != [
            (shard.name, shard.sha256) for shard in finals
        ]:
            raise PlanUnusable(f"{path} is not the manifest of what {plan_path(job)} names")
    except InputError as error:
        raise PlanUnusable(str(error)) from error
    make_set(results, job=job, storage=storage)
    return report


def discard_plan(job: Job, storage: Storage) -> None:
    """Throws a plan away: what blocks left beside it is the unfinished work of a job again."""
    storage.delete_file(plan_path(job))


def _read_staged(job: Job, storage: Storage) -> dict[str, Any]:
    """The report of a set that is to be made; what it says of the files beside it is true."""
    path = staged_path(job, REPORT_NAME)
    try:
        report: dict[str, Any] = json.loads(read_file(storage, path))
        files: Mapping[str, Any] = report[FILES]
        for name, entry in files.items():
            if name not in (*_SIDECARS, MANIFEST_NAME):
                raise PlanUnusable(f"{path} names {name!r}, which is no file of a set")
            if digest_of(staged_path(job, name), storage) != (entry["num_bytes"], entry["sha256"]):
                raise PlanUnusable(f"{staged_path(job, name)} is not what was written")
    except FileNotFoundError as error:
        raise PlanUnusable(f"{error.filename or error} is gone") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PlanUnusable(f"{path} is damaged") from error
    return report


def make_set(results: Sequence[BlockResult], *, job: Job, storage: Storage) -> None:
    """Makes the set of what was written for it: the older manifest goes, shards move, the new manifest comes last.

    Args:
      results: of all blocks, in order, as the plan has them.
      job: the job.
      storage: where all lies.

    Raises:
      OSError: storage failed; FileNotFoundError if a file that was written for the set is gone.
      PlanUnusable: a shard is gone.
    """
    manifest = read_file(storage, staged_path(job, MANIFEST_NAME))
    report = read_file(storage, staged_path(job, REPORT_NAME))
    staged: Mapping[str, Any] = json.loads(report)[FILES]
    placed = placements(results, job)
    target = sidecar_path(job.output_prefix, MANIFEST_NAME)
    if _read_if_there(target, storage) != manifest:
        # From here to the end the set has no manifest, and the plan says how to go on. If it is the very manifest
        # that is to come, another try at this step may have finished the set already, which must not be undone.
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
            # Another try at this step got to its end meanwhile: then it is there.
            if digest_of(path, storage) != (staged[name]["num_bytes"], staged[name]["sha256"]):
                raise
    write_file(storage, sidecar_path(job.output_prefix, REPORT_NAME), report)
    write_file(storage, target, manifest)
    with contextlib.suppress(OSError):  # The set is finished; what is left over goes with the next command.
        _delete_work(results, placed, replaced["jobs"], job, storage)


def _place(placed: Sequence[Placement], job: Job, storage: Storage) -> None:
    """Moves all shards to their places; those that change their names within the set go out of the way first."""
    files = Files(job, storage)

    def move(source: str, target: str, placement: Placement) -> None:
        try:
            storage.move(source, target)
        except FileNotFoundError as error:
            # Another try at this step may have moved it at this moment.
            if not any(files.is_now(path, placement.part) for path in placement.paths[1:]):
                raise PlanUnusable(files.describe(placement.source, placement.part)) from error

    def set_aside(placement: Placement) -> None:
        arrived = any(files.has(path, placement.part, digest=True) for path in placement.paths[1:])
        if placement.aside == placement.source or arrived:
            return
        if not files.is_now(placement.source, placement.part):
            raise PlanUnusable(files.describe(placement.source, placement.part))
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
    """Deletes what the set was made from and what it replaces: first what says that there is work in it."""
    for key in jobs:
        folder = posixpath.join(sidecar_dir(job.output_prefix), f"parts-{key}")
        for name in (PLAN_NAME, DEFINITION_NAME):
            storage.delete_file(posixpath.join(folder, name))
        storage.delete_tree(folder)
    for path in (plan_path(job), posixpath.join(job.parts_dir, DEFINITION_NAME)):
        storage.delete_file(path)
    kept = {placement.target for placement in placed}
    own = {own_path(job.output_prefix, part.name, where=plan_path(job)) for result in results for part in result.parts}
    own |= {placement.aside for placement in placed}
    own = {path for path in own - kept if posixpath.dirname(path) == job.parts_dir}
    own |= {
        f"{posixpath.join(job.parts_dir, posixpath.basename(path).partition('.')[0])}{RESULT_SUFFIX}" for path in own
    }
    _for_each(storage.delete_file, sorted(own))
    storage.delete_tree(posixpath.join(job.parts_dir, _STAGED))
    for name in (REPLACED_NAME, RECORD_NAME, REPORT_NAME, FAILED_NAME, SKIPPED_NAME):
        storage.delete_file(posixpath.join(job.parts_dir, name))
    if not storage.match(posixpath.join(job.parts_dir, "*")):
        storage.delete_tree(job.parts_dir)


def tidy(job: Job, storage: Storage) -> None:
    """Deletes what is left over of a job whose set is finished; to be called with the output locked."""
    with contextlib.suppress(OSError):
        for name in (PLAN_NAME, DEFINITION_NAME):
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
        return {"shards": [], "jobs": []}  # Then more stays than need be.


def _read_if_there(path: str, storage: Storage) -> bytes | None:
    try:
        return read_file(storage, path)
    except FileNotFoundError:
        return None


def _copy(source: str, target: str, storage: Storage) -> None:
    with storage.open(source) as stream, storage.create(target) as copy:
        shutil.copyfileobj(stream, copy, _COPY_BYTES)
