"""A job that was checked and is ready to start, and its start."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import posixpath
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from configs.activity import doing
from configs.counts import counted
from configs.errors import EXIT_OK, InputError
from configs.printed_commands import PROGRAMS, program_command
from pipelines.checks.output_claim import Claim, Output, locked
from pipelines.embedding.local_run import finish_here, run_here
from pipelines.embedding.submission import RemoteRun, run_remotely, submit
from pipelines.runners.beam_options import is_dataflow, is_local
from pipelines.runners.dataflow_service import service_job_of, watch_if_active
from pipelines.runners.worker_files import worker_files
from pipelines.runners.worker_requirements import ROOTS
from preprocess.backbones.staged_weights import stage_weights
from preprocess.beam.transforms import EmbedLists, EmbedOptions, EngineLoader
from preprocess.jobs.job import Job
from preprocess.jobs.journal import tidy
from preprocess.jobs.made_with import forget_record, load_recorded, recorded, write_record
from preprocess.lists.labels import LabelDict
from preprocess.locks.lease import Lease
from preprocess.locks.lock_holder import LockLost
from preprocess.locks.output_lock import fenced
from preprocess.machine.run_note import RunNote, noted
from preprocess.storage.base import Storage

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job that is ready to start.

    Attributes:
      job: the job.
      labels: the dictionary.
      options: how rows become records.
      runner: of the pipeline.
      beam_options: of the pipeline.
      storage: of the output.
      flags: of this program, with all of Beam's, that give this job.
      weights_folder: the folder into which weights are copied for the workers; None if they are not copied.
      requirements: what workers install, as lines of a requirements file; empty if they install nothing.
      overwrite: replace the files at the output.
      verify: read every file of a finished set before saying that nothing is left to do.
      wait: wait for the end of the job, wherever it runs.
      dry_run: do not start the job.
      program: the subcommand of `hugs` that starts it.
    """

    job: Job
    labels: LabelDict
    options: EmbedOptions
    runner: Any
    beam_options: PipelineOptions
    storage: Storage
    flags: tuple[str, ...]
    weights_folder: str | None
    requirements: tuple[str, ...]
    overwrite: bool
    verify: bool
    wait: bool
    dry_run: bool
    program: str = "embed"

    def describe(self) -> str:
        """The command that gives this job, and what the command does not show, as text."""
        lines = [program_command(self.program, *self.flags)]
        if self.requirements:
            shown, more = self.requirements[: len(ROOTS)], len(self.requirements) - len(ROOTS)
            lines.append(f"  workers install: {' '.join(shown)} and the {more} packages that go with them here")
        if self.weights_folder:
            lines.append(f"  workers read the weights from: {self.weights_folder}")
        return "\n".join(lines)

    def start(self) -> int | RemoteRun:
        """Starts the job.

        Returns:
          The exit code if the job has ended; the run if it goes on elsewhere.

        Raises:
          InputError: the user's input is wrong, nothing could be embedded, or too many images failed.
        """
        job, storage = self.job, self.storage
        service_job = service_job_of(self.beam_options) if is_dataflow(self.beam_options) else None
        ask_service = functools.partial(watch_if_active, options=self.beam_options)
        module, _ = PROGRAMS[self.program]
        with locked(job, storage, program=module, service_job=service_job, ask_service=ask_service) as lock:
            storage = fenced(storage, lock)
            output = Output(job, storage)
            with doing("reading every file of the set" if self.verify else "looking for what earlier runs left"):
                claim = output.claim(overwrite=self.overwrite, verify=self.verify)
            if claim is Claim.JOURNALED:
                code = finish_here(job, storage=storage)
                if code is not None:
                    return code
                output = Output(job, storage)  # The journal could not be used and is deleted.
                claim = output.claim(overwrite=self.overwrite, verify=self.verify)
            if claim is Claim.DONE:
                with doing("removing what earlier runs left"):
                    tidy(job, storage)
                return _say_done(job, verified=self.verify)
            if claim is Claim.DAMAGED:
                print(f"note: {output.damage[0]}; what is lost of the set is embedded again", file=sys.stderr)
            going_on = ", going on where an earlier run was stopped" if claim is Claim.UNFINISHED else ""
            keeps_finished = claim is Claim.DAMAGED or (job.retry is not None and job.retry.of_finished_set)
            # With --overwrite the run does not have to use the engine of what it replaces.
            record = self._told_on_failure(
                lambda: None if self.overwrite else recorded(job, storage, of_finished_set=keeps_finished)
            )
            run: dict[str, Any] = {"runner": self.runner, "beam_options": self.beam_options, "storage": storage}
            if not is_local(self.beam_options):
                job = output.prepare(claim=claim, overwrite=self.overwrite)
                # If nothing is recorded yet, the first worker records which engine is used.
                self._told_on_failure(
                    lambda: forget_record(job, storage) if record is None else write_record(job, storage, record)
                )
                packing = "packing what the workers need"
                with self._noted(job, storage), worker_files(self.beam_options, self.requirements):
                    with doing(packing):
                        transform = self._transform(job)
                    if not is_dataflow(self.beam_options):
                        where = self.beam_options.view_as(StandardOptions).runner
                        name = posixpath.basename(job.output_prefix)
                        rows = counted(job.rows_expected, "row")
                        print(f"{name}: embedding {rows} on {where}{going_on}", file=sys.stderr)
                        with doing(f"embedding {name}"):
                            return run_remotely(job, transform, **run)
                    with doing(packing):
                        started = submit(job, transform, **run)
                print(f"submitted {counted(job.rows_expected, 'row')} as Dataflow job {started.job_id}{going_on}")
                print("\n".join(started.describe()), flush=True)
                if isinstance(lock, Lease):
                    lock.hand_over()
                return started
            # The stage that embeds would load the engine too. Loaded here, a fault of it is reported in one clear line.
            with doing("loading the network"):
                loaded = load_recorded(self.options.load_engine, record, job)
            name = posixpath.basename(job.output_prefix)
            job = output.prepare(claim=claim, overwrite=self.overwrite)
            self._told_on_failure(lambda: write_record(job, storage, loaded.info))
            print(
                f"{name}: embedding {counted(job.rows_expected, 'row')} with {loaded.identity.describe()}{going_on}",
                file=sys.stderr,
            )
            print(f"{name}: {loaded.info.engine}, {loaded.info.why}", file=sys.stderr)
            with self._noted(job, storage):
                return run_here(job, self._transform(job), **run)

    def _noted(self, job: Job, storage: Storage) -> contextlib.AbstractContextManager[None]:
        """Within this context, a note beside the parts says what runs, and then what stopped it."""
        note = RunNote(
            job.parts_dir,
            storage,
            module=PROGRAMS[self.program][0],
            arguments=self.flags,
            facts={"run_id": job.run_id, "rows": job.rows_expected},
        )
        return noted(note, lost=LockLost)

    def _told_on_failure(self, use_storage: Callable[[], _Result]) -> _Result:
        try:
            return use_storage()
        except OSError as error:
            raise InputError(f"output_path: cannot use {self.job.output_prefix!r} ({error}).") from error

    def _transform(self, job: Job) -> EmbedLists:
        options = self.options
        if self.weights_folder:
            loader = options.load_engine
            assert isinstance(loader, EngineLoader)
            backbone = stage_weights(loader.backbone, self.weights_folder, self.storage)
            options = dataclasses.replace(options, load_engine=dataclasses.replace(loader, backbone=backbone))
        return EmbedLists(job=job, labels=self.labels, options=options)


def _say_done(job: Job, *, verified: bool) -> int:
    """Says that nothing is left to do."""
    if verified:
        print(f"{job.output_prefix}: every file of the set was read, and every digest agrees")
    what = "no row in its dead letters to try again" if job.retry is not None else "nothing to do"
    print(f"{job.output_prefix}: this very job has finished this set of records; {what}.")
    return EXIT_OK
