"""A job that was checked and is ready to start, and its start."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from configs.activity import doing
from configs.counts import counted
from configs.errors import EXIT_OK, InputError
from configs.printed_commands import PROGRAMS, program_command
from pipelines.checks.output_claim import Claim, Output, locked
from pipelines.embedding.local_run import finish_here, name_of, run_here
from pipelines.embedding.submission import RemoteRun, run_remotely, submit
from pipelines.runners.beam_options import is_dataflow, is_local
from pipelines.runners.dataflow_service import service_job_of, watch_if_active
from pipelines.runners.worker_files import worker_files
from pipelines.runners.worker_requirements import ROOTS
from preprocess.backbones.staged_weights import stage_weights
from preprocess.beam.transforms import BackboneSet, EmbedLists, EmbedOptions, EngineLoader
from preprocess.engines.base import EngineInfo
from preprocess.jobs.job import Job
from preprocess.jobs.journal import tidy
from preprocess.jobs.made_with import forget_record, load_recorded, recorded, write_record
from preprocess.lists.labels import LabelDict
from preprocess.locks.file_lock import FileLock
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
      further: sets that other backbones make of the same images in the same run.
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
    further: tuple[BackboneSet, ...] = ()
    program: str = "embed"

    def describe(self) -> str:
        """The command that gives this job, and what the command does not show, as text."""
        lines = [program_command(self.program, *self.flags)]
        if self.further:
            lines += [f"  {made.job.backbone_name} writes {made.job.output_prefix}" for made in self.sets]
        if self.requirements:
            shown, more = self.requirements[: len(ROOTS)], len(self.requirements) - len(ROOTS)
            lines.append(f"  workers install: {' '.join(shown)} and the {more} packages that go with them here")
        if self.weights_folder:
            lines.append(f"  workers read the weights from: {self.weights_folder}")
        return "\n".join(lines)

    @property
    def sets(self) -> tuple[BackboneSet, ...]:
        """The sets that the job makes, one for each backbone."""
        first = BackboneSet(job=self.job, load_engine=self.options.load_engine, size=self.options.images.size)
        return first, *self.further

    def start(self) -> int | RemoteRun:
        """Starts the job.

        Returns:
          The exit code if the job has ended; the run if it goes on elsewhere.

        Raises:
          InputError: the user's input is wrong, nothing could be embedded, or too many images failed.
        """
        with contextlib.ExitStack() as stack:
            # In one order, so that two runs with some outputs in common do not each get a part of the locks.
            outputs = {made.job.output_prefix: made for made in self.sets}
            locked_sets = {prefix: self._open(outputs[prefix], stack) for prefix in sorted(outputs)}
            opened = [locked_sets[prefix] for prefix in outputs]
            # Before anything is done with one output, all others are looked at: they may refuse the run.
            codes = [self._finish_what_is_done(one) for one in opened]
            left = [one for one, code in zip(opened, codes, strict=True) if code is None]
            done = max((code for code in codes if code is not None), default=EXIT_OK)
            if not left:
                return done
            started = self._embed(left, stack)
            return started if isinstance(started, RemoteRun) else max(done, started)

    def _open(self, made: BackboneSet, stack: contextlib.ExitStack) -> _OpenedSet:
        """Locks the output of a set until the stack ends, and looks at it."""
        service_job = service_job_of(self.beam_options) if is_dataflow(self.beam_options) else None
        lock = stack.enter_context(
            locked(
                made.job,
                self.storage,
                program=PROGRAMS[self.program][0],
                service_job=service_job,
                ask_service=functools.partial(watch_if_active, options=self.beam_options),
            )
        )
        opened = _OpenedSet(made, lock, fenced(self.storage, lock))
        self._claim(opened)
        return opened

    def _claim(self, opened: _OpenedSet) -> None:
        opened.output = Output(opened.job, opened.storage)
        with doing("reading every file of the set" if self.verify else "looking for what earlier runs left"):
            opened.claim = opened.output.claim(overwrite=self.overwrite, verify=self.verify)

    def _finish_what_is_done(self, opened: _OpenedSet) -> int | None:
        """The exit code if nothing of a set is left to embed; else None."""
        if opened.claim is Claim.JOURNALED:
            code = finish_here(opened.job, storage=opened.storage)
            if code is not None:
                return code
            self._claim(opened)  # The journal could not be used and is deleted.
        if opened.claim is Claim.DONE:
            with doing("removing what earlier runs left"):
                tidy(opened.job, opened.storage)
            return _say_done(opened.job, verified=self.verify)
        if opened.claim is Claim.DAMAGED:
            print(f"note: {opened.output.damage[0]}; what is lost of the set is embedded again", file=sys.stderr)
        return None

    def _embed(self, opened: Sequence[_OpenedSet], stack: contextlib.ExitStack) -> int | RemoteRun:
        """Embeds what is left of sets, here or elsewhere; as `start`."""
        for one in opened:
            # With --overwrite the run does not have to use the engine of what it replaces.
            one.record = self._told_on_failure(one, self._record_of)
        if len(opened) < len(self.sets) and self.job.planned_cost is not None:
            print(
                f"note: the plan is for {counted(len(self.sets), 'backbone')}, and this run embeds with {len(opened)}; "
                "going without its prediction",
                file=sys.stderr,
            )
        run: dict[str, Any] = {"runner": self.runner, "beam_options": self.beam_options, "storage": self.storage}
        if is_local(self.beam_options):
            # The stage that embeds would load the engines too. Loaded here, a fault is reported in one clear line.
            with doing("loading the network" if len(opened) == 1 else "loading the networks"):
                engines = [load_recorded(one.made.load_engine, one.record, one.job) for one in opened]
            for one, engine in zip(opened, engines, strict=True):
                self._prepare(one, opened)
                one.record = engine.info
                self._told_on_failure(one, _write_record)
                rows = counted(one.job.rows_expected, "row")
                print(
                    f"{one.job.name}: embedding {rows} with {engine.identity.describe()}{one.going_on}", file=sys.stderr
                )
                print(f"{one.job.name}: {engine.info.engine}, {engine.info.why}", file=sys.stderr)
            run |= self._noted(opened, stack)
            return run_here([one.job for one in opened], self._transform(opened), **run)
        for one in opened:
            self._prepare(one, opened)
            # If nothing is recorded yet, the first worker records which engine is used.
            self._told_on_failure(one, _write_record)
        jobs = [one.job for one in opened]
        packing = "packing what the workers need"
        rows = counted(self.job.rows_expected, "row")
        going_on = next((one.going_on for one in opened if one.going_on), "")
        with contextlib.ExitStack() as submission:
            run |= self._noted(opened, submission)
            submission.enter_context(worker_files(self.beam_options, self.requirements))
            with doing(packing):
                transform = self._transform(opened)
            if not is_dataflow(self.beam_options):
                where = self.beam_options.view_as(StandardOptions).runner
                print(f"{name_of(jobs)}: embedding {rows} on {where}{going_on}", file=sys.stderr)
                with doing(f"embedding {name_of(jobs)}"):
                    return run_remotely(jobs, transform, **run)
            with doing(packing):
                started = submit(jobs, transform, **run)
        print(f"submitted {rows} as Dataflow job {started.job_id}{going_on}")
        print("\n".join(started.describe()), flush=True)
        for one in opened:
            if isinstance(one.lock, Lease):
                one.lock.hand_over()
        return started

    def _record_of(self, opened: _OpenedSet) -> EngineInfo | None:
        """What the set must be embedded with; None if it is to be chosen."""
        job = opened.job
        keeps_finished = opened.claim is Claim.DAMAGED or (job.retry is not None and job.retry.of_finished_set)
        return None if self.overwrite else recorded(job, opened.storage, of_finished_set=keeps_finished)

    def _prepare(self, opened: _OpenedSet, together: Sequence[_OpenedSet]) -> None:
        """Makes the folder of parts of a set, which is embedded together with others."""
        assert opened.claim is not None
        job = opened.output.prepare(claim=opened.claim, overwrite=self.overwrite)
        others = tuple(one.job.output_prefix for one in together if one is not opened)
        planned_cost = job.planned_cost if len(together) == len(self.sets) else None
        opened.made = dataclasses.replace(
            opened.made, job=dataclasses.replace(job, together_with=others, planned_cost=planned_cost)
        )

    def _noted(self, opened: Sequence[_OpenedSet], stack: contextlib.ExitStack) -> dict[str, Any]:
        """Until the stack ends, a note beside the parts of each set says what runs, and then what stopped it.

        Returns:
          What a run of several sets does when one is finished, as a keyword argument: another may still fail.
        """
        notes = {
            one.job.output_prefix: RunNote(
                one.job.parts_dir,
                one.storage,
                module=PROGRAMS[self.program][0],
                arguments=self.flags,
                facts={"run_id": one.job.run_id, "rows": one.job.rows_expected},
            )
            for one in opened
        }
        for note in notes.values():
            stack.enter_context(noted(note, lost=LockLost))
        return {"on_finished": lambda job: notes[job.output_prefix].forget()} if len(opened) > 1 else {}

    def _told_on_failure(self, opened: _OpenedSet, use_storage: Callable[[_OpenedSet], _Result]) -> _Result:
        try:
            return use_storage(opened)
        except OSError as error:
            raise InputError(f"output_path: cannot use {opened.job.output_prefix!r} ({error}).") from error

    def _transform(self, opened: Sequence[_OpenedSet]) -> EmbedLists:
        first, *further = [self._with_weights(one.made) for one in opened]
        images = dataclasses.replace(self.options.images, size=first.size)
        options = dataclasses.replace(self.options, load_engine=first.load_engine, images=images)
        return EmbedLists(job=first.job, labels=self.labels, options=options, further=further)

    def _with_weights(self, made: BackboneSet) -> BackboneSet:
        """A set whose weights lie where workers can read them."""
        if not self.weights_folder:
            return made
        loader = made.load_engine
        assert isinstance(loader, EngineLoader)
        backbone = stage_weights(loader.backbone, self.weights_folder, self.storage)
        return dataclasses.replace(made, load_engine=dataclasses.replace(loader, backbone=backbone))


@dataclasses.dataclass(eq=False)
class _OpenedSet:
    """A set whose output this run has locked and looked at.

    Attributes:
      made: the set.
      lock: of its output; None if its storage has no locks.
      storage: of the output; it changes nothing after the lock is lost.
      output: what lies at the output.
      claim: what the run does with that.
      record: what the set must be embedded with, or is; None if that is yet to be chosen.
    """

    made: BackboneSet
    lock: Lease | FileLock | None
    storage: Storage
    output: Output = dataclasses.field(init=False)
    claim: Claim | None = None
    record: EngineInfo | None = None

    @property
    def job(self) -> Job:
        """The job that makes the set."""
        return self.made.job

    @property
    def going_on(self) -> str:
        """Words that say that an earlier run was stopped; empty if there was none."""
        return ", going on where an earlier run was stopped" if self.claim is Claim.UNFINISHED else ""


def _write_record(opened: _OpenedSet) -> None:
    """Writes what a set is embedded with, or deletes an older record if that is yet to be chosen."""
    if opened.record is None:
        forget_record(opened.job, opened.storage)
    else:
        write_record(opened.job, opened.storage, opened.record)


def _say_done(job: Job, *, verified: bool) -> int:
    """Says that nothing is left to do."""
    if verified:
        print(f"{job.output_prefix}: every file of the set was read, and every digest agrees")
    what = "no failed row to try again" if job.retry is not None else "nothing to do"
    print(f"{job.output_prefix}: this very job has finished this set of records; {what}.")
    return EXIT_OK
