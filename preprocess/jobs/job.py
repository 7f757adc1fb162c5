"""What a job is, for all who take part in it, and where its unfinished work lies."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from configs.choices import Compression
from preprocess.records.record_set import sidecar_dir

if TYPE_CHECKING:
    from preprocess.jobs.planned_cost import Prediction

DEFINITION_NAME = "job.json"
PLAN_NAME = "blocks.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retry:
    """Rows that failed before are to be tried again.

    Attributes:
      reasons: only those that failed for one of these; None for all.
      of_finished_set: the rows are those of the set's ledger, and its records are kept; else those of an unfinished
        run of the same job.
    """

    reasons: frozenset[str] | None = None
    of_finished_set: bool = False

    def wants(self, reason: str) -> bool:
        """True if rows that failed for `reason` are to be tried again."""
        return self.reasons is None or reason in self.reasons


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the program that starts a job knows and its parts need.

    Attributes:
      definition: what makes the records what they are: the contents of the lists and the dictionary, the backbone
        and the options, as JSON. The same definition is the same job: a later run goes on where one was stopped.
      run_id: unique; each run of a job has its own.
      output_prefix: the set to write, for example "out/preproc/train".
      compression: of the shards.
      labels: the dictionary, in order.
      input_paths: the lists.
      input_sha256: of the contents of each list, as it was checked before the start; what is embedded is read again.
      rows_expected: rows counted before the start; the job must read as many.
      started: when this run was started, UTC.
      versions: of the software that runs it, for the report.
      max_failed_percent: the job fails if a larger share of the rows to embed does.
      against: prefixes of finished sets to look for the same images in.
      embedding_cache: folder of embeddings by content; None for none.
      retry: rows to try again.
      prediction: what a plan expects of it; None for none.
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
    prediction: Prediction | None = None

    @property
    def key(self) -> str:
        """A digest of the definition, 12 hex digits."""
        canonical = json.dumps(self.definition, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def parts_dir(self) -> str:
        """Where blocks leave their files until the set is finished."""
        return f"{sidecar_dir(self.output_prefix)}/parts-{self.key}"


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The names of the fields in which two definitions differ, sorted."""
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
