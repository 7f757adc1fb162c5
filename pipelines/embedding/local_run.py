"""Runs a job in this process: shows progress, prints a table at the end, and explains every stop in one line."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import apache_beam as beam

from configs.activity import doing
from configs.errors import EXIT_INTERRUPTED, EXIT_OK, InputError
from configs.printed_commands import this_command
from pipelines.embedding.summary import print_summary
from preprocess.jobs import faults, progress
from preprocess.jobs.commit import JobFailed
from preprocess.jobs.finished_set import read_finished
from preprocess.jobs.job import Job
from preprocess.jobs.journal import JournalUnusable, commit_journal, discard_journal, tidy
from preprocess.jobs.report import COMPLETE, TOO_MANY_FAILED, WRONG_ROW_ACCOUNTING
from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.run_note import note_signal
from preprocess.records.record_set import REPORT_NAME, sidecar_dir
from preprocess.storage.base import Storage, read_file

EXIT_BUG = 1


def go_on() -> str:
    """Says what is left of a job that was stopped, and the command that goes on."""
    return f"What was embedded is kept. To go on, give the same command again: {this_command()}"


def run_here(
    jobs: Sequence[Job],
    transform: beam.PTransform,
    *,
    runner: Any,
    beam_options: Any,
    storage: Storage,
    on_finished: Callable[[Job], None] = lambda job: None,
) -> int:
    """Runs a job to its end and prints how it ended.

    Args:
      jobs: the job; or the jobs of several backbones, which one run does together.
      transform: the Beam transform that does the work of the jobs.
      runner: of the pipeline.
      beam_options: of the pipeline.
      storage: where the outputs lie.
      on_finished: is called with each job whose set is finished, before anything is raised because of another.

    Returns:
      0; 1 if the row accounting is wrong.

    Raises:
      InputError: nothing could be embedded, too many rows failed, or storage failed.
    """
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    _ = pipeline | "EmbedLists" >> transform
    faults.forget()
    rows_expected = sum(job.rows_expected for job in jobs)
    unit = "row" if len(jobs) == 1 else "embedding"
    failure: Exception | None = None
    with (
        stops_are_explained(name_of(jobs)),
        doing(f"embedding {name_of(jobs)}", total=rows_expected, unit=unit, stays=True) as rows,
        progress.listening(rows.advance),
    ):
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            # A job that ran to its end and failed has written the reason into its report.
            failure = error

    def explain(job: Job) -> NoReturn:
        if failure is None:
            raise AssertionError(f"The job ended without a report at {job.output_prefix!r}.")
        _explain(job, faults.first_fault())
        raise failure

    return conclude_all(jobs, storage=storage, no_report=explain, on_finished=on_finished)


def name_of(jobs: Sequence[Job]) -> str:
    """The name of the sets that a run makes, for messages: "train", or of several backbones "train (a, b)"."""
    name = posixpath.basename(jobs[0].output_prefix)
    backbones = ", ".join(job.backbone_name for job in jobs if job.backbone_name)
    return f"{name} ({backbones})" if backbones else name


def conclude_all(
    jobs: Sequence[Job],
    *,
    storage: Storage,
    no_report: Callable[[Job], NoReturn],
    locked: bool = True,
    on_finished: Callable[[Job], None] = lambda job: None,
) -> int:
    """Concludes each job of a run that has ended, also if another has failed; see `conclude`.

    Args:
      jobs: of the run.
      storage: where the outputs lie.
      no_report: raises an exception that says why a job ended without a report.
      locked: as in `conclude`.
      on_finished: as in `run_here`.

    Returns:
      The worst exit code.

    Raises:
      InputError: a job failed. The faults of further jobs are printed before.
    """
    reports = [(job, report_of(job, storage)) for job in jobs]
    if all(report is None for _, report in reports):
        no_report(jobs[0])
    worst, fault = EXIT_OK, None
    for job, report in reports:
        try:
            if report is None:
                no_report(job)
            worst = max(worst, conclude(job, report, storage=storage, locked=locked))
        except InputError as error:
            if fault is not None:
                print(f"error: {fault}", file=sys.stderr)
            fault = error
        else:
            if report["status"] == COMPLETE:
                on_finished(job)
    if fault is not None:
        raise fault
    return worst


def finish_here(job: Job, *, storage: Storage) -> int | None:
    """Commits the set of a job whose blocks are all done, as `run_here` would have done it.

    Returns:
      0; None if a file that the journal names is missing. The journal is then deleted, and the job is unfinished.

    Raises:
      InputError: storage failed.
    """
    name = job.name
    print(f"{name}: all rows are done; finishing the set", file=sys.stderr)
    try:
        try:
            with doing(f"finishing {name}"):
                report = commit_journal(job, storage)
        except JournalUnusable as error:
            print(f"{name}: the set cannot be finished of what is there ({error}); going on without", file=sys.stderr)
            discard_journal(job, storage)
            return None
    except OSError as error:
        _explain(job, error)
        raise
    return conclude(job, report, storage=storage)


def conclude(job: Job, report: dict[str, Any], *, storage: Storage, locked: bool = True) -> int:
    """Prints the table of a report and turns its status into an exit code.

    Args:
      job: the job.
      report: of the job.
      storage: where the output lies.
      locked: whether this process still has the lock of the output, so that it may tidy up.

    Raises:
      InputError: nothing could be embedded, or too many rows failed.
    """
    complete = report["status"] == COMPLETE
    print_summary(report, job.output_prefix, sidecars=_sidecars(job, complete=complete), storage=storage)
    if report["status"] == WRONG_ROW_ACCOUNTING:
        print(f"error: the row accounting is wrong: {report['error']} Run the job again.", file=sys.stderr)
        return EXIT_BUG
    if not complete:
        # Without a record there is no set, whatever share may fail.
        more = ", or pass another --max_failed_percent" if report["status"] == TOO_MANY_FAILED else ""
        changed = " If you change the list itself, add --overwrite." if report["embedded"] else ""
        raise InputError(
            f"{job.output_prefix}: {report['error']} The table above says why. Correct what is wrong{more}, and give "
            f"the same command again: only the rows that failed are tried again.{changed}"
        )
    if locked:
        tidy(job, storage)
    return EXIT_OK


def _sidecars(job: Job, *, complete: bool) -> str:
    return sidecar_dir(job.output_prefix) if complete else job.parts_dir


def report_of(job: Job, storage: Storage) -> dict[str, Any] | None:
    """The report that this run wrote; None if the run ended before it wrote one.

    A report that says "complete" counts only together with the manifest of the set.
    """
    report: Any
    try:
        _, report = read_finished(job.output_prefix, storage)
        if report.get("run_id") == job.run_id:
            return dict(report)
    except (OSError, InputError):
        pass
    try:
        report = json.loads(read_file(storage, f"{_sidecars(job, complete=False)}/{REPORT_NAME}"))
    except (OSError, ValueError, RecursionError):
        return None
    ended = isinstance(report, dict) and report.get("run_id") == job.run_id and report.get("status") != COMPLETE
    return report if ended else None


def _explain(job: Job, fault: BaseException | None) -> None:
    """Raises an `InputError` of one line for a fault that a person can repair. For all other faults it does nothing."""
    if isinstance(fault, InputError):
        raise fault
    if isinstance(fault, JobFailed):
        raise InputError(f"{job.output_prefix}: {fault}") from fault
    if isinstance(fault, MachineFault):
        raise InputError(f"{job.output_prefix}: {fault} {go_on()}") from fault
    if isinstance(fault, OSError):
        cause = f"{fault.strerror}: {fault.filename}" if fault.strerror and fault.filename else str(fault)
        raise InputError(f"{job.output_prefix}: storage failed ({cause}). {go_on()}") from fault


@contextlib.contextmanager
def stops_are_explained(output: str) -> Iterator[None]:
    """Within this context Ctrl-C and SIGTERM end the process at once, with a line that says how to go on.

    It does not raise an exception: threads of the runner and of storage clients would then keep the process alive until
    their last image is done. Nothing that they still write is needed. A file of a job that was not completed can be
    recognized as such.

    Args:
      output: the output of the job, or a name of it.
    """
    message = f"\n{posixpath.basename(output)}: stopped. {go_on()}\n"

    def stop(number: int, frame: FrameType | None) -> None:
        sys.stderr.write(message)
        sys.stderr.flush()
        note_signal(number)
        os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)

    try:
        before: list[tuple[int, Callable[[int, FrameType | None], Any] | int | None]] = [
            (number, signal.signal(number, stop)) for number in (signal.SIGINT, signal.SIGTERM)
        ]
    except ValueError:  # This is not the main thread, and only the main thread may set signal handlers.
        before = []
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
