"""The description of a job that all its steps share, and the folder of its unfinished work."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from configs.choices import Compression
from preprocess.lists.list_format import ListFormat
from preprocess.records.record_set import DEFINITION_NAME as DEFINITION_NAME
from preprocess.records.record_set import PARTS_PREFIX, sidecar_dir
from preprocess.records.views import Views

if TYPE_CHECKING:
    from preprocess.jobs.planned_cost import PlannedCost

JOURNAL_NAME = "blocks.jsonl"
# The end of the names of the files that hold the results of finished blocks.
RESULT_SUFFIX = ".result.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retry:
    """A request to try rows again that failed before.

    Attributes:
      reasons: try only rows that failed for one of these reasons; None for all.
      of_finished_set: try the dead letters of the finished set again and keep its records; otherwise the failed rows
        of an unfinished run of the same job.
    """

    reasons: frozenset[str] | None = None
    of_finished_set: bool = False

    def wants(self, reason: str) -> bool:
        """Whether rows that failed for `reason` are tried again."""
        return self.reasons is None or reason in self.reasons


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the program that starts a job tells the steps of the job.

    Attributes:
      definition: everything that decides the records, as JSON: the contents of the lists and the dictionary, the
        backbone and the options. Runs with the same definition are the same job, so a later run goes on where an
        earlier one was stopped.
      run_id: a unique id for each run of a job.
      output_prefix: the set to write, for example "out/preproc/train".
      compression: of the shards.
      labels: the dictionary, in order.
      input_paths: the lists.
      input_sha256: the digest of each list when it was checked before the start. The pipeline reads the list again and
        compares.
      input_formats: how each list is read; empty if all are read as rows `image_uri,label[,label...]`.
      views: the views of each image; None for one.
      backbone_name: what tells the set from those that other backbones make in the same run; empty if there are none.
      together_with: prefixes of those other sets.
      image_hashes: whether the records have the perceptual hashes of their images.
      rows_expected: the number of rows that were counted before the start; the job must read as many.
      started: the time at which this run was started, UTC.
      versions: of the software that runs the job, for the report.
      max_failed_percent: the job fails if a larger share of the rows to embed fails.
      against: prefixes of finished sets in which the same images are looked for.
      embedding_cache: the folder of the embedding cache; None for no cache.
      retry: failed rows to try again; None for none.
      planned_cost: what a plan estimates for it; None if there is no plan.
    """

    definition: Mapping[str, Any]
    run_id: str
    output_prefix: str
    compression: Compression
    labels: tuple[str, ...]
    input_paths: tuple[str, ...]
    input_sha256: tuple[str, ...]
    rows_expected: int
    started: datetime.datetime
    versions: dict[str, str]
    max_failed_percent: float = 100.0
    against: tuple[str, ...] = ()
    embedding_cache: str | None = None
    retry: Retry | None = None
    planned_cost: PlannedCost | None = None
    input_formats: tuple[ListFormat, ...] = ()
    views: Views | None = None
    image_hashes: bool = False
    backbone_name: str = ""
    together_with: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the set, for messages: that of its files, with the backbone if the run makes several sets."""
        name = posixpath.basename(self.output_prefix)
        return f"{name} ({self.backbone_name})" if self.backbone_name else name

    @property
    def key(self) -> str:
        """A digest of the definition, 12 hex digits."""
        canonical = json.dumps(self.definition, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def parts_dir(self) -> str:
        """The folder into which blocks write their files until the set is finished."""
        return f"{sidecar_dir(self.output_prefix)}/{PARTS_PREFIX}{self.key}"


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The sorted names of the fields in which two definitions differ."""
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
