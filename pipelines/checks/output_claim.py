"""Decides, before a job starts, what the job does with the files that are already at its output.

The same command goes on where an earlier run was stopped, or finds that nothing is left to do. Files of another job are
never mixed in, and they are replaced only if the user says so. Every state that a stop or a fault of storage can leave
has a claim. So in every state there is a command that leads to a finished set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import glob
import json
import os
import posixpath
import uuid
from collections.abc import Mapping
from typing import Any

from configs.errors import InputError
from preprocess.jobs.finished_set import find_damage
from preprocess.jobs.job import DEFINITION_NAME, Job, Retry, differences
from preprocess.jobs.journal import journal_path, note_replaced
from preprocess.jobs.set_files import read_block_results
from preprocess.locks import output_lock
from preprocess.locks.file_lock import FileLock
from preprocess.locks.lease import AskService, Lease
from preprocess.locks.lock_holder import this_process
from preprocess.records.record_set import (
    MANIFEST_NAME,
    PARTS_PREFIX,
    REPORT_NAME,
    definitions_glob,
    set_of_shard,
    shard_name,
    sidecar_dir,
    sidecar_path,
)
from preprocess.storage.base import Storage, has_file, read_file, write_file
from preprocess.storage.uris import has_scheme

_GLOB_CHARACTERS = "*?["


class Claim(enum.Enum):
    """What a job finds at its output."""

    NEW = "new"  # No files of this job.
    UNFINISHED = "unfinished"  # Blocks that an earlier run of the same job left.
    JOURNALED = "journaled"  # All blocks and a journal: the earlier run was stopped during the commit.
    DAMAGED = "damaged"  # The set of the same job, with files that are missing or truncated. The others are kept.
    DONE = "done"  # The finished set. Nothing is left to do.


def check_prefix(prefix: str, *, create: bool = True) -> None:
    """Makes sure that a set can be written at `prefix`.

    Args:
      prefix: of the set.
      create: create its local folders, and try to move a file as shards are moved later; otherwise only look at the
        nearest folder that exists.

    Raises:
      InputError: it names no file, it cannot be written to, or shards could not be moved to their final names.
    """
    directory, name = posixpath.split(prefix)
    if not name or name in (".", ".."):
        raise InputError(
            f"output_path: must end in the name of the set, for example out/preproc/train. Received: {prefix!r}"
        )
    # Folders of this machine have names of all kinds. A set with such a name is a glob that was meant for a reader.
    if any(character in (prefix if has_scheme(prefix) else name) for character in _GLOB_CHARACTERS):
        raise InputError(f"output_path: must not hold any of {_GLOB_CHARACTERS}. Received: {prefix!r}")
    if has_scheme(prefix):
        return
    sidecars = sidecar_dir(prefix)
    longest = shard_name(name, 0, 1, "gzip")
    most = _longest_name(nearest_folder(directory))
    if len(os.fsencode(longest)) > most:
        raise InputError(
            f"output_path: the name of the set is too long: {longest!r}, the name of a shard, has "
            f"{len(os.fsencode(longest))} bytes, and names there may have {most}. Choose a shorter one."
        )
    try:
        if create:
            os.makedirs(sidecars, exist_ok=True)
        for folder in (nearest_folder(directory), nearest_folder(sidecars)):
            if not os.path.isdir(folder):
                raise NotADirectoryError(f"{folder} is not a directory")
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"no permission to write in {folder}")
        if create:
            _try_move(sidecars, directory or ".", num_bytes=len(os.fsencode(longest)))
    except OSError as error:
        raise InputError(f"output_path: cannot write to {prefix!r} ({error}).") from error


def _longest_name(folder: str) -> int:
    """The largest number of bytes that the name of a file in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):  # Its filesystem does not say; Windows has no such function.
        return 255


def _try_move(source_folder: str, target_folder: str, *, num_bytes: int) -> None:
    """Moves an empty file as the commit moves shards, so that a failure is found now and not after hours.

    Args:
      source_folder: the folder below which parts lie.
      target_folder: the folder of the shards.
      num_bytes: the length of the file's name, at least 33.

    Raises:
      InputError: files cannot be moved from one folder to the other.
      OSError: nothing can be written.
    """
    name = f".{uuid.uuid4().hex}".ljust(num_bytes, "x")
    source, target = os.path.join(source_folder, name), os.path.join(target_folder, name)
    try:
        with open(source, "xb"):
            pass
        try:
            os.replace(source, target)
        except OSError as error:
            raise InputError(
                f"output_path: files cannot be moved from {source_folder!r} to {target_folder!r} ({error.strerror}), "
                "as shards are when a set is finished. Is one of the two a link, or a mount of its own? Both must lie "
                "on one filesystem: choose another output_path."
            ) from error
    finally:
        for path in (source, target):
            with contextlib.suppress(OSError):
                os.remove(path)


def nearest_folder(path: str) -> str:
    """The path itself if it exists, otherwise the nearest folder above it that exists."""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path or "."


class Output:
    """The files at a job's output, as they were when this object was created.

    Attributes:
      damage: the faults of the set that `claim` found, in words.

    Raises:
      InputError: storage cannot be read.
    """

    def __init__(self, job: Job, storage: Storage):
        self._job = job
        self._storage = storage
        self.damage: list[str] = []
        prefix = job.output_prefix
        sidecars = sidecar_dir(prefix)
        try:
            names = {posixpath.basename(path) for path in storage.match(f"{glob.escape(sidecars)}/*")}
            self._has_shards = any(set_of_shard(path) == prefix for path in storage.match(f"{glob.escape(prefix)}-*"))
            self._jobs = {
                posixpath.basename(posixpath.dirname(path)).removeprefix(PARTS_PREFIX): path
                for path in storage.match(definitions_glob(prefix))
            }
            # A job that has embedded nothing may be replaced. Where shards lie, a job may be the repair of their set.
            self._jobs_without_records = {
                key
                for key, path in self._jobs.items()
                if key != job.key and not self._has_shards and not self._has_records(path)
            }
            self._has_journal = has_file(storage, journal_path(job))
            self._has_manifest = MANIFEST_NAME in names
            self._has_report = REPORT_NAME in names
            self._report = self._read_json(sidecar_path(prefix, REPORT_NAME)) if self._has_report else {}
        except OSError as error:
            raise InputError(f"output_path: cannot look at {prefix!r} ({error}).") from error

    def claim(self, *, overwrite: bool, verify: bool = False) -> Claim:
        """Decides what the job does.

        Args:
          overwrite: replace the files of other jobs, or the finished set.
          verify: read every file of a finished set; otherwise only compare sizes.

        Raises:
          InputError: the files belong to another job, or there is no finished set whose failures can be retried.
        """
        job = self._job
        is_retry = job.retry is not None and job.retry.of_finished_set
        if self._has_manifest and not overwrite:
            self._require_same_job("the finished set lies" if is_retry else "a finished set of records lies")
        if self._has_journal:
            return Claim.JOURNALED
        if is_retry:
            return self._claim_retry(verify=verify)
        if self._has_manifest and not overwrite:
            return Claim.DAMAGED if self._find_damage(verify=verify) else Claim.DONE
        if self._has_shards and not self._has_report and not self._jobs and not overwrite:
            raise InputError(
                f"output_path: shards that this pipeline did not finish lie at {job.output_prefix!r}. Pass --overwrite "
                "to replace them, or choose another output_path."
            )
        for key, path in self._jobs.items():
            if key != job.key and key not in self._jobs_without_records and not overwrite:
                fields = ", ".join(differences(job.definition, self._read_json(path)))
                raise InputError(
                    f"output_path: an unfinished job lies at {job.output_prefix!r} that differs from this one in "
                    f"{fields or 'nothing that is known'}. Give that job's command again to finish it, pass "
                    "--overwrite to throw away what it embedded (--embedding_cache would keep it), or choose another "
                    "output_path."
                )
        if not overwrite and self._is_of_same_job() and self._fault_of_blocks() is None:
            self.damage = [f"{sidecar_path(job.output_prefix, MANIFEST_NAME)} is not there"]
            return Claim.DAMAGED
        return Claim.UNFINISHED if job.key in self._jobs else Claim.NEW

    def _has_records(self, definition_path: str) -> bool:
        """Whether an unfinished job has written records: the part of a block without records is not there."""
        parts = self._storage.match(f"{glob.escape(posixpath.dirname(definition_path))}/*")
        return any(".tfrecord" in posixpath.basename(path) for path in parts)

    def _claim_retry(self, *, verify: bool) -> Claim:
        if not self._has_manifest:
            raise InputError(
                f"retry_failures: there is no finished set of records at {self._job.output_prefix!r}. Run the job "
                "without --retry_failures: the same command goes on where it was stopped."
            )
        assert self._job.retry is not None
        if self._find_damage(verify=verify):
            return Claim.DAMAGED
        if fault := self._fault_of_blocks():
            raise InputError(f"retry_failures: {fault} Pass --overwrite in its stead to embed the set again.")
        if not any(self._job.retry.wants(reason) for reason in self._report.get("failed", ())):
            return Claim.DONE
        return Claim.UNFINISHED

    def _find_damage(self, *, verify: bool) -> list[str]:
        try:
            self.damage = find_damage(self._job.output_prefix, self._storage, digests=verify)
        except OSError as error:
            raise InputError(f"output_path: cannot look at {self._job.output_prefix!r} ({error}).") from error
        if self.damage and (fault := self._fault_of_blocks()):
            raise InputError(
                f"output_path: {self.damage[0]}, and what is whole of the set cannot be kept: {fault} Pass --overwrite "
                "to embed the set again."
            )
        return self.damage

    def _fault_of_blocks(self) -> str | None:
        """Why the results of the set's blocks cannot be read; None if they can."""
        try:
            for _ in read_block_results(self._job.output_prefix, self._storage):
                pass
        except (OSError, InputError) as error:
            return str(error)
        return None

    def _is_of_same_job(self) -> bool:
        """Whether this job made the set, finished or not."""
        return bool(self._report) and not differences(self._job.definition, self._report.get("definition") or {})

    def _require_same_job(self, what: str) -> None:
        prefix = self._job.output_prefix
        if not isinstance(self._report.get("definition"), dict):
            raise InputError(
                f"output_path: {what} at {prefix!r}, of which {sidecar_path(prefix, REPORT_NAME)} does not say how it "
                "was made: it is gone or damaged. Pass --overwrite to embed the set again, or choose another "
                "output_path."
            )
        fields = differences(self._job.definition, self._report["definition"])
        if fields == ["input_path"] and _same_paths(self._job.definition, self._report["definition"]):
            raise InputError(
                f"output_path: {what} at {prefix!r}, and the list that it was made of has changed since: --input_path "
                "is the same, its content is not. Pass --overwrite to embed the list as it is now (--embedding_cache "
                "DIR reads what is in that cache already, in place of embedding it again), or choose another "
                "output_path."
            )
        if fields:
            raise InputError(
                f"output_path: {what} at {prefix!r} that was made with other {', '.join(fields)}. "
                "Pass --overwrite to replace it once the new one is ready, or choose another output_path."
            )

    def prepare(self, *, claim: Claim, overwrite: bool) -> Job:
        """Makes the folder of parts. The caller holds the lock of the output.

        The files that the job replaces stay until its set is finished.

        Args:
          claim: the result of `claim`.
          overwrite: replace the files of other jobs.

        Returns:
          The job. If an earlier run failed because too many rows failed, the job tries these rows again. If a set is
          damaged, the job keeps its undamaged files.

        Raises:
          InputError: storage cannot be written to.
        """
        job, storage = self._job, self._storage
        try:
            if job.key not in self._jobs:
                storage.delete_tree(job.parts_dir)  # Left over of a set that was finished.
            definition = json.dumps(dict(job.definition), indent=1).encode()
            write_file(storage, posixpath.join(job.parts_dir, DEFINITION_NAME), definition)
            note_replaced(job, storage, jobs=self._other_jobs() if overwrite else self._jobs_without_records)
            ended = has_file(storage, posixpath.join(job.parts_dir, REPORT_NAME))
        except OSError as error:
            raise InputError(f"output_path: cannot write to {job.output_prefix!r} ({error}).") from error
        if job.retry is None and (ended or claim is Claim.DAMAGED):
            # An empty set of reasons: no failed row is tried again, and only lost records are embedded.
            reasons = None if ended else frozenset[str]()
            return dataclasses.replace(job, retry=Retry(reasons=reasons, of_finished_set=claim is Claim.DAMAGED))
        return job

    def _other_jobs(self) -> set[str]:
        """The keys of all other jobs that have files at the output."""
        pattern = f"{glob.escape(sidecar_dir(self._job.output_prefix))}/{PARTS_PREFIX}*/*"
        folders = {posixpath.dirname(path) for path in self._storage.match(pattern)}
        return {posixpath.basename(folder).removeprefix(PARTS_PREFIX) for folder in folders} - {self._job.key}

    def _read_json(self, path: str) -> dict[str, Any]:
        try:
            data = json.loads(read_file(self._storage, path))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


def locked(
    job: Job,
    storage: Storage,
    *,
    program: str = "pipelines.embed",
    service_job: tuple[str, str, str] | None = None,
    ask_service: AskService | None = None,
) -> contextlib.AbstractContextManager[Lease | FileLock | None]:
    """Locks the set of a job against other runs; see `preprocess.locks.output_lock.locked`.

    Args:
      job: the job.
      storage: where its output lies.
      program: the module that runs, for messages.
      service_job: the job on Dataflow that the run will become, as (project, region, name); None if it runs elsewhere.
      ask_service: says whether such a job is active; None if no service can say that.

    Raises:
      InputError: another run holds the lock.
    """
    return output_lock.locked(
        sidecar_dir(job.output_prefix),
        holder=this_process(program=program, run_id=job.run_id, service_job=service_job),
        flag="output_path",
        output=job.output_prefix,
        storage=storage,
        ask_service=ask_service,
    )


def _same_paths(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two definitions name the same lists, whatever is in them."""
    try:
        return [path for path, _ in mine["input_path"]] == [path for path, _ in theirs["input_path"]]
    except (KeyError, TypeError, ValueError):
        return False
