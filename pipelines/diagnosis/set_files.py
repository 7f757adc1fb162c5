"""The files of a set as they are listed: its shards, its sidecars and the unfinished work of its jobs."""

from __future__ import annotations

import dataclasses
import glob
import posixpath
from typing import Any

from configs.errors import InputError
from pipelines.diagnosis.look import Look
from preprocess.jobs.job import DEFINITION_NAME, JOURNAL_NAME
from preprocess.machine.run_note import read_note
from preprocess.records.record_set import (
    FAILED_NAME,
    MANIFEST_NAME,
    PARTS_PREFIX,
    REPORT_NAME,
    Manifest,
    definitions_glob,
    set_of_shard,
    sidecar_dir,
    sidecar_path,
)
from preprocess.storage.base import has_file


@dataclasses.dataclass
class Work:
    """The unfinished work of one job at a set.

    Attributes:
      folder: its folder of parts.
      definition: of the job; None if it cannot be read.
      note: of its last run; None if there is none.
      report: of a run that failed; None if there is none.
      sizes: its files.
    """

    folder: str
    definition: dict[str, Any] | None
    note: dict[str, Any] | None
    report: dict[str, Any] | None
    sizes: dict[str, int]

    @property
    def is_journaled(self) -> bool:
        """Whether all rows are done, and only the set is to be put together."""
        return posixpath.join(self.folder, JOURNAL_NAME) in self.sizes

    @property
    def is_begun(self) -> bool:
        """Whether it is a job, and not the rest of one that is finished."""
        return posixpath.join(self.folder, DEFINITION_NAME) in self.sizes or self.is_journaled

    @property
    def failed(self) -> dict[str, Any] | None:
        """The report, if the last run wrote it."""
        if self.report is None:
            return None
        same_run = self.note is None or self.note.get("run_id") == self.report.get("run_id")
        return self.report if same_run else None


@dataclasses.dataclass
class SetFiles:
    """The files of a set, as they were listed.

    Attributes:
      prefix: of the set.
      shards: sizes of its shards by path.
      sidecars: sizes of the files in its sidecar folder by path.
      works: unfinished work.
      has_dead_lock: whether a lock is left of a process that does not live any more.
    """

    prefix: str
    shards: dict[str, int]
    sidecars: dict[str, int]
    works: list[Work]
    has_dead_lock: bool = False

    def has(self, name: str) -> bool:
        """Whether the sidecar folder has a file."""
        return sidecar_path(self.prefix, name) in self.sidecars


def list_set(prefix: str, look: Look) -> SetFiles:
    """Lists the files of a set.

    Raises:
      OSError: storage failed.
    """
    storage, side = look.storage, sidecar_dir(prefix)
    found = storage.sizes(f"{glob.escape(prefix)}-*")
    shards = {path: size for path, size in found.items() if set_of_shard(path) == prefix}
    sidecars = storage.sizes(f"{glob.escape(side)}/*")
    by_folder: dict[str, dict[str, int]] = {}
    for path, size in storage.sizes(f"{glob.escape(side)}/{PARTS_PREFIX}*/*").items():
        by_folder.setdefault(posixpath.dirname(path), {})[path] = size
    works = [
        Work(
            folder=folder,
            definition=look.json(posixpath.join(folder, DEFINITION_NAME)),
            note=read_note(folder, storage),
            report=look.json(posixpath.join(folder, REPORT_NAME)),
            sizes=sizes,
        )
        for folder, sizes in by_folder.items()
    ]
    return SetFiles(prefix, shards, sidecars, [work for work in works if work.is_begun])


def is_set(prefix: str, look: Look) -> bool:
    """Whether files of a set, finished or not, lie at a prefix.

    Raises:
      OSError: storage failed.
    """
    if not posixpath.basename(prefix):
        return False
    storage = look.storage
    if any(
        has_file(storage, sidecar_path(prefix, name)) for name in (MANIFEST_NAME, REPORT_NAME, ".lock", FAILED_NAME)
    ):
        return True
    return bool(storage.match(definitions_glob(prefix))) or any(
        set_of_shard(path) == prefix for path in storage.match(f"{glob.escape(prefix)}-*")
    )


def read_set(prefix: str, look: Look) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the report of a finished set; the report is empty if it is gone or damaged.

    Raises:
      InputError: the manifest is damaged, or of another version.
      OSError: storage failed.
    """
    path = sidecar_path(prefix, MANIFEST_NAME)
    raw = look.read(path)
    if raw is None:
        raise InputError(f"{path} is not there")
    return Manifest.from_bytes(raw, where=path), look.json(sidecar_path(prefix, REPORT_NAME)) or {}
