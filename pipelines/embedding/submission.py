"""Submits a job to a runner outside this process, waits for it, and ends in the same way as a local run."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineState

from configs.errors import InputError, cause_in_one_line
from configs.service_refusals import machines_remedy
from pipelines.embedding.local_run import conclude_all, go_on, name_of, stops_are_explained
from pipelines.runners.beam_noise import quiet_beam, quiet_children, quiet_disconnections, quiet_job_service
from pipelines.runners.beam_options import is_dataflow
from pipelines.runners.dead_workers import watch_workers
from preprocess.jobs.job import Job
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.base import Storage

_TRACEBACK = "Traceback (most recent call last):"
# Exceptions whose message is enough without a traceback.
_EXPLAINED = ("configs.errors.InputError", "preprocess.jobs.commit.JobFailed", "preprocess.locks.lock_holder.LockLost")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteRun:
    """A job that a runner has accepted.

    Attributes:
      jobs: the job; or the jobs of several backbones, which the runner does together.
      result: Beam's handle of the job.
      storage: where the output will lie.
      where: the page or the logs that a person can look at, as the end of a sentence.
      job_id: the id that the runner gave the job; None if it gave none.
      outlives_us: whether the job goes on when this process ends.
      commands: commands that print more about the job.
      list_command: a command that lists all running jobs; empty if there is none.
      on_finished: as in `local_run.run_here`.
    """

    jobs: Sequence[Job]
    result: Any
    storage: Storage
    where: str
    job_id: str | None
    outlives_us: bool
    commands: tuple[str, ...] = ()
    list_command: str = ""
    on_finished: Callable[[Job], None] = lambda job: None

    def describe(self) -> list[str]:
        """Lines that say where the job can be watched and where its output will lie."""
        commands = [f"  {'':<10}{command}" for command in self.commands]
        outputs = [
            line
            for job in self.jobs
            for line in (
                f"  {'records':<10}{job.output_prefix}-*",
                f"  {'report':<10}{sidecar_path(job.output_prefix, REPORT_NAME)}",
            )
        ]
        return [f"  {'watch':<10}{self.where}", *commands, *outputs]

    def wait(self) -> int:
        """Waits for the end of the job, and prints how it ended as a local run does.

        Returns:
          0; 1 if the row accounting is wrong.

        Raises:
          InputError: the job failed or was cancelled, nothing could be embedded, or too many rows failed.
        """
        failure = None
        try:
            # Some runners raise when a job fails, others return the state.
            with quiet_beam() if self.outlives_us else contextlib.nullcontext():
                state = self.result.wait_until_finish()
        except KeyboardInterrupt:
            what = "the job goes on" if self.outlives_us else "whether the job goes on is up to its runner"
            print(f"{name_of(self.jobs)}: no longer waited for; {what}. Look at {self.where}", file=sys.stderr)
            raise
        except Exception as error:
            failure = error
            state = _state_of(self.result)

        def explain(job: Job) -> NoReturn:
            cause = f" ({_cause_of(failure)})" if failure else ""
            remedy = machines_remedy(str(failure)) if failure else None
            what = "the job ended in state" if PipelineState.is_terminal(state) else "lost sight of the job in state"
            raise InputError(
                f"{job.output_prefix}: {what} {state}{cause}, without a report of a finished set. "
                f"{remedy + ' ' if remedy else ''}Look at {self.where}. {go_on()}"
            ) from failure

        # A job that ran to its end and failed has written the reason into its report. One that outlives this process
        # took over the lock, and its last step removed it.
        return conclude_all(
            self.jobs,
            storage=self.storage,
            no_report=explain,
            locked=not self.outlives_us,
            on_finished=self.on_finished,
        )


def check_options(runner: Any, beam_options: PipelineOptions) -> None:
    """Finds options that Beam would refuse when the pipeline is made.

    Raises:
      InputError: the options contradict each other, or one is missing.
    """
    errors = PipelineOptionsValidator(beam_options, runner).validate()
    if errors:
        raise InputError(f"Beam's options: {' '.join(map(str, errors))} See the pipeline options of Apache Beam.")


def submit(
    jobs: Sequence[Job],
    transform: beam.PTransform,
    *,
    runner: Any,
    beam_options: PipelineOptions,
    storage: Storage,
    on_finished: Callable[[Job], None] = lambda job: None,
) -> RemoteRun:
    """Submits a job to a runner.

    Args:
      jobs: the job; or the jobs of several backbones, which the runner does together.
      transform: the Beam transform that does the work of the jobs.
      runner: a runner outside this process.
      beam_options: of the pipeline.
      storage: where the outputs will lie.
      on_finished: as in `local_run.run_here`.

    Raises:
      InputError: the runner cannot be reached, or refused the job.
    """
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    _ = pipeline | "EmbedLists" >> transform
    if is_dataflow(beam_options):
        from pipelines.runners import dataflow_service

        with quiet_children(), quiet_beam(), dataflow_service.explained(beam_options):
            result = pipeline.run()
        job_id = result.job_id()
        place = dataflow_service.place_of(beam_options)
        return RemoteRun(
            jobs=jobs,
            result=result,
            storage=storage,
            where=place.console_url(job_id),
            job_id=job_id,
            outlives_us=True,
            commands=(place.command("describe", job_id),),
            list_command=place.command("list", "--status=active"),
        )
    name = beam_options.view_as(StandardOptions).runner
    where = f"what {name} and its workers logged"
    if _has_job_service_here(beam_options):
        where = "what its workers logged"
        watch_workers()
    try:
        result = pipeline.run()
    except Exception as error:
        _explain(error, name)
        raise
    return RemoteRun(
        jobs=jobs,
        result=result,
        storage=storage,
        where=where,
        job_id=None,
        outlives_us=False,
        on_finished=on_finished,
    )


def run_remotely(
    jobs: Sequence[Job],
    transform: beam.PTransform,
    *,
    runner: Any,
    beam_options: PipelineOptions,
    storage: Storage,
    on_finished: Callable[[Job], None] = lambda job: None,
) -> int:
    """Submits a job to a runner and waits for it; see `submit` and `RemoteRun.wait`."""
    submitted: dict[str, Any] = {
        "runner": runner,
        "beam_options": beam_options,
        "storage": storage,
        "on_finished": on_finished,
    }
    if not _has_job_service_here(beam_options):
        with quiet_disconnections():
            return submit(jobs, transform, **submitted).wait()
    # Without this, the threads of the job service would keep a stopped process alive until the job ends.
    with stops_are_explained(name_of(jobs)), quiet_job_service():
        try:
            return submit(jobs, transform, **submitted).wait()
        except InputError as error:
            print(_traceback_of_bug(error.__cause__), end="", file=sys.stderr)
            raise


def _has_job_service_here(beam_options: PipelineOptions) -> bool:
    """Whether Beam's own job service runs the job, in this process."""
    return beam_options.view_as(PortableOptions).job_endpoint == "embed"


def _traceback_of_bug(failure: BaseException | None) -> str:
    """The traceback of a worker's exception, which Beam does not show; empty if the message is enough."""
    # Beam's own job service raises an error whose message contains this traceback.
    _, failed_in_worker, frames = str(failure or "").rpartition(f"RuntimeError: {_TRACEBACK}")
    frames = frames.rstrip()
    if not failed_in_worker or not frames:
        return ""
    name = frames.splitlines()[-1].partition(":")[0]
    kind = getattr(builtins, name, None)
    if name in _EXPLAINED or (isinstance(kind, type) and issubclass(kind, OSError)):
        return ""
    return f"{_TRACEBACK}{frames}\n"


def _cause_of(failure: BaseException) -> str:
    """What to tell of a failure: an `InputError` of a worker, if one has led to it, else its own last line."""
    error: BaseException | None = failure
    while error is not None:
        if isinstance(error, InputError):
            return str(error).rstrip(".")
        error = error.__cause__ or error.__context__
    return _last_line(failure)


def _last_line(error: BaseException) -> str:
    """The last line of a runner's message; the lines before it are a traceback, or say only that the job failed."""
    # The text of an error of gRPC is a table of its fields.
    details = getattr(error, "details", None)
    message = details() if callable(details) else None
    lines = str(message or error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__


def _state_of(result: Any) -> str:
    try:
        return str(result.state)
    except Exception:  # The runner does not run any more, so nobody knows the state.
        return "UNKNOWN"


def _explain(error: Exception, runner: str) -> None:
    """Raises an `InputError` of one line for a fault that a person can repair. For all other faults it does nothing."""
    import grpc  # type: ignore[import-untyped]

    if isinstance(error, grpc.FutureTimeoutError):
        raise InputError(
            f"runner: {runner} cannot reach its job server. Check --job_endpoint, and that the server runs."
        ) from error
    if isinstance(error, grpc.RpcError):
        details = getattr(error, "details", lambda: None)() or str(error)
        raise InputError(f"runner: the job server of {runner} refused the job ({details}).") from error
    if isinstance(error, RuntimeError | OSError):
        cause = cause_in_one_line(error).rstrip(".")
        raise InputError(f"runner: {runner} could not be started ({cause}).") from error
