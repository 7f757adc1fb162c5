"""Runs the real pipeline in this process, as `pipelines.embed` does, and records when rows were finished."""

from __future__ import annotations

import dataclasses
import datetime
import time
import uuid
from collections.abc import Sequence
from typing import Any

from apache_beam import Pipeline

from benchmarks.steady_state import steady_rate
from pipelines.checks.output_claim import locked
from pipelines.checks.preflight import read_label_dict, scan_lists
from pipelines.runners.beam_options import make_runner, parse_beam_options
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.image_source import ImageReader
from preprocess.beam.transforms import EmbedLists, EmbedOptions
from preprocess.jobs import progress
from preprocess.jobs.job import Job
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.base import read_file

_read_image = ImageReader()
_last_read = 0.0


def read_and_note(location: str) -> bytes:
    """Reads an image as the pipeline does, and notes the time."""
    global _last_read
    _last_read = time.perf_counter()
    return _read_image(location)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """One run of the pipeline.

    Attributes:
      seconds: from the start of the job to its end.
      rows: rows of the list.
      notes: pairs of seconds since the start and the number of rows finished by then, in order.
      last_read: seconds from the start until the last image began to be read; 0 if reading was not recorded.
      report: the job's own report.
    """

    seconds: float
    rows: int
    notes: tuple[tuple[float, int], ...]
    last_read: float
    report: dict[str, Any]

    def steady_rate(self) -> float:
        """Images a second in the steady state (`benchmarks.steady_state`); raises ValueError for a short run."""
        return steady_rate(self.notes, rows=self.rows, last_read=self.last_read)


def embed(
    list_path: str, dict_path: str, output_prefix: str, options: EmbedOptions, *, beam_flags: Sequence[str] = ()
) -> EmbedRun:
    """Embeds a list with the transform and the runner of `pipelines.embed`, or with another runner."""
    import json

    global _last_read
    storage = BeamStorage()
    labels = read_label_dict(dict_path, storage)
    lists = scan_lists([list_path], labels=labels, unknown_labels=options.unknown_labels, storage=storage)
    job = Job(
        definition={"input_path": list(lists.sha256)},
        run_id=uuid.uuid4().hex[:12],
        output_prefix=output_prefix,
        compression="none",
        labels=labels.names,
        input_paths=lists.paths,
        input_sha256=lists.sha256,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions={},
    )
    beam_options = parse_beam_options(beam_flags, own_flags=())
    pipeline = Pipeline(runner=make_runner(beam_options), options=beam_options)
    _ = pipeline | EmbedLists(job=job, labels=labels, options=options)
    notes: list[tuple[float, int]] = []
    _last_read = 0.0
    started = time.perf_counter()

    def note(rows: int) -> None:
        notes.append((time.perf_counter() - started, rows + (notes[-1][1] if notes else 0)))

    with locked(job, storage), progress.listening(note):
        pipeline.run().wait_until_finish()
    seconds = time.perf_counter() - started
    report = json.loads(read_file(storage, sidecar_path(output_prefix, REPORT_NAME)))
    last_read = max(_last_read - started, 0.0)
    return EmbedRun(seconds=seconds, rows=lists.rows, notes=tuple(notes), last_read=last_read, report=report)
