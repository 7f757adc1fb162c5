"""Runs the answering: embeds the photos as `pipelines.embed` does, then answers for their records."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from configs.activity import doing
from configs.errors import EXIT_OK, InputError, cause_in_one_line
from configs.given_flags import by_flag
from configs.json_text import json_line
from configs.printed_commands import program_command
from pipelines.answers.answer_job import (
    ANSWERS_FORMAT,
    AnswerJob,
    AnswersClaim,
    begun_path,
    claim_answers,
    ranges_of,
    read_answers,
    read_json,
    require_own,
    sidecars,
)
from pipelines.answers.flags import AnswerFlags, AnswerOptions
from pipelines.answers.photo_lists import PhotoLists, delete_other_lists, gone_if_refused, make_lists
from pipelines.answers.shard_answers import ShardAnswerer, finish_answers
from pipelines.answers.sources import Answerer, answerer_of
from pipelines.answers.summary import print_answers
from pipelines.answers.transforms import AnswerRecordSets
from pipelines.checks.embed_flags import EmbedFlags, JobOptions
from pipelines.checks.output_claim import check_prefix
from pipelines.checks.preflight import check_reachable
from pipelines.embedding.local_run import go_on, stops_are_explained
from pipelines.embedding.preparation import Target, choose_target, prepare_job
from pipelines.embedding.prepared_job import PreparedJob
from pipelines.runners.worker_files import worker_files
from preprocess.answers.answer_files import RECORDS_NAME
from preprocess.beam.beam_storage import BeamStorage
from preprocess.jobs import progress
from preprocess.jobs.commit import JobFailed
from preprocess.jobs.job import Job, differences
from preprocess.lists.labels import LabelDict
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import fenced, locked
from preprocess.machine.machine_faults import MachineFault
from preprocess.records.record_set import FAILED_NAME, MANIFEST_NAME, REPORT_NAME, SKIPPED_NAME, sidecar_path
from preprocess.storage.base import Storage, has_file, read_file, write_file
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.scratch import scratch_folder
from preprocess.storage.uris import has_scheme
from trainer.data.record_sets import RecordSet, find_record_sets

PROGRAM = "predict_all"
_MODULE = "pipelines.predict"
_OF_ONE_RUN = ("--overwrite", "--retry_failures", "--verify")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What was checked before anything starts.

    Attributes:
      flags: of the program.
      answerer: what answers.
      top_k: classes of each answer.
      target: the runner.
      storage: of the output.
      job: what embeds the photos; None if the records are there.
      lists: of the photos; None as before.
      definition: of the answers.
    """

    flags: AnswerFlags
    answerer: Answerer
    top_k: int
    target: Target
    storage: BeamStorage
    job: PreparedJob | None
    lists: PhotoLists | None
    definition: dict[str, Any]


def answer(flags: AnswerFlags) -> int:
    """Answers for photos or records.

    Returns:
      0; 1 if the row accounting of the records is wrong.

    Raises:
      InputError: the user's input is wrong, nothing could be embedded, or too many images failed.
    """
    options = flags.options
    with contextlib.ExitStack() as stack:
        prepared = _prepare(flags, stack)
        if options.plan is not None and prepared.job is not None:
            from pipelines.answers.planning import print_plan

            return print_plan(flags, prepared.job, options.plan)
        if options.dry_run:
            words = [word for word in flags.own_words if word != "--dry_run"]
            command = program_command(PROGRAM, *words, *flags.beam_flags)
            print(prepared.job.describe() if prepared.job is not None else command)
            return EXIT_OK
        run_id = uuid.uuid4().hex[:12]
        # Held from the first photo to the last answer: between the two, another run could replace the records.
        with locked(
            sidecars(options.output_path),
            holder=this_process(program=_MODULE, run_id=run_id),
            flag="output_path",
            output=options.output_path,
            storage=prepared.storage,
        ) as lock:
            if prepared.job is not None:
                code = _embed(prepared)
                if code != EXIT_OK:
                    return code
            return _answer(prepared, fenced(prepared.storage, lock), run_id=run_id)


def _prepare(flags: AnswerFlags, stack: contextlib.ExitStack) -> _Prepared:
    options = flags.options
    with doing("loading the model" if options.model_dir else "loading the network"):
        answerer = answerer_of(options)
    top_k = answerer.top_k(options.top_k)
    if answerer.warning:
        print(f"warning: {answerer.warning}", file=sys.stderr)
    # Only the paths of the target matter here.
    paths = options.input_path or options.data_paths
    target = choose_target(_embed_flags(flags, answerer, paths, options.output_path))
    FileSystems.set_options(target.beam_options)
    storage = BeamStorage(RetryPolicy(limit_sec=options.storage_retry_sec))
    for path in (*paths, options.output_path):
        storage.require_scheme(path) if not path.startswith(("http://", "https://")) else None
    check_reachable([*paths, options.output_path])
    check_prefix(options.output_path, create=False)
    require_own(options.output_path, storage, overwrite=options.overwrite)
    definition: dict[str, Any] = {
        "format": options.format,
        "top_k": top_k,
        "rows_per_file": options.rows_per_file,
        "head": answerer.head.sha256,
        "labels": hashlib.sha256(json.dumps(answerer.names).encode()).hexdigest(),
    }
    job, lists = None, None
    if options.data_paths:
        sets = _find_sets(options.data_paths)
        answerer.require_fitting(sets)
        definition["records"] = _digests(sets, storage)
        claim_answers(options.output_path, definition, storage, overwrite=options.overwrite)
    else:
        job, lists = _prepare_job(flags, answerer, definition, storage, stack, on_dataflow=target.on_dataflow)
    return _Prepared(
        flags=flags,
        answerer=answerer,
        top_k=top_k,
        target=target,
        storage=storage,
        job=job,
        lists=lists,
        definition=definition,
    )


def _is_embedded(job: Job, storage: Storage) -> bool:
    """Whether the job has finished its records, which other answers may be made of."""
    try:
        report = read_json(sidecar_path(job.output_prefix, REPORT_NAME), storage)
    except OSError as error:
        raise InputError(f"output_path: cannot look at {job.output_prefix!r} ({error}).") from error
    return bool(report) and not differences(job.definition, report.get("definition") or {})


def _embed_flags(
    flags: AnswerFlags, answerer: Answerer, input_path: Sequence[str], output_path: str, **changes: Any
) -> EmbedFlags:
    """The command line of `pipelines.embed` that embeds the photos."""
    values = flags.options.job_options(
        **(answerer.backbone or {}), input_path=tuple(input_path), output_path=output_path, **changes
    )
    return EmbedFlags(
        options=JobOptions(**values),
        recipe=flags.recipe,
        beam_flags=flags.beam_flags,
        own_words=flags.own_words,
        own_names=flags.own_names,
        program=PROGRAM,
    )


def _prepare_job(
    flags: AnswerFlags,
    answerer: Answerer,
    definition: dict[str, Any],
    storage: BeamStorage,
    stack: contextlib.ExitStack,
    *,
    on_dataflow: bool,
) -> tuple[PreparedJob, PhotoLists]:
    """The job that embeds the photos, and their lists. It adds the job to the definition of the answers."""
    options = flags.options
    folder = sidecars(options.output_path)
    is_trial = options.dry_run or options.plan is not None
    # A trial writes nothing at the output, except where only workers elsewhere read the list, and then not for long.
    is_elsewhere = is_trial and not on_dataflow
    lists = make_lists(options.input_path, stack.enter_context(scratch_folder()) if is_elsewhere else folder, storage)
    is_lent = is_trial and not is_elsewhere and not has_file(storage, begun_path(options.output_path))
    if lists.made is not None and is_lent:
        stack.callback(storage.delete_file, lists.made)
    # The list of a trial has another place, so what lies at the output cannot be that of the very same job.
    changes = {"overwrite": True, "verify": False, "retry_failures": None} if is_trial else {}
    # The classes of a network itself are no labels: some have one name.
    labels = LabelDict(answerer.names if options.model_dir is not None else (), optional=True)
    with gone_if_refused(lists, unless=begun_path(options.output_path), storage=storage):
        job = prepare_job(
            _embed_flags(flags, answerer, lists.paths, posixpath.join(folder, RECORDS_NAME), **changes),
            labels=labels,
            expects=answerer.identity if answerer.verified else None,
            unsaid=() if lists.made is None else (lists.made,),
            # `overwrite` is said of the answers.
            keeps_finished=True,
        )
        if options.plan is None:
            # The list of a trial has another place, so nothing can be said about the photos that it names.
            photos = None if lists.made is not None and is_elsewhere else job.job.key
            claim_answers(options.output_path, {**definition, "photos": photos}, storage, overwrite=options.overwrite)
        definition["photos"] = job.job.key
    if not is_trial:
        job = dataclasses.replace(job, overwrite=options.overwrite and not _is_embedded(job.job, storage))
    return job, lists


def _find_sets(paths: Sequence[str]) -> tuple[RecordSet, ...]:
    with doing("looking at the record sets"):
        return find_record_sets(paths, flag="data_paths")


def _digests(sets: Sequence[RecordSet], storage: Storage) -> list[list[str]]:
    """The prefix and the digest of the manifest of each set."""
    found = []
    for record_set in sets:
        path = sidecar_path(record_set.prefix, MANIFEST_NAME)
        try:
            digest = hashlib.sha256(read_file(storage, path)).hexdigest()
        except OSError as error:
            raise InputError(f"data_paths: cannot read {path} ({error}).") from error
        prefix = record_set.prefix
        found.append([prefix if has_scheme(prefix) else os.path.abspath(prefix), digest])
    return found


def _embed(prepared: _Prepared) -> int:
    """Embeds the photos, waiting for the end of the job wherever it runs. Returns the exit code."""
    assert prepared.job is not None
    # Said before the first record is written, so that files of this output are known for what they are.
    _note_begun(prepared)
    started = prepared.job.start()
    return started if isinstance(started, int) else started.wait()


def _note_begun(prepared: _Prepared) -> None:
    options = prepared.flags.options
    begun = {"definition": prepared.definition}
    try:
        if read_json(begun_path(options.output_path), prepared.storage) != begun:
            write_file(prepared.storage, begun_path(options.output_path), json_line(begun, indent=2))
    except OSError as error:
        raise InputError(f"output_path: cannot write to {options.output_path!r} ({error}).") from error


def _answer(prepared: _Prepared, held: Storage, *, run_id: str) -> int:
    """Answers for the records, unless that is done. `held` is the storage of the output under the lock of this run."""
    options, storage, answerer = prepared.flags.options, prepared.storage, prepared.answerer
    prefix = options.output_path
    photos = posixpath.join(sidecars(prefix), RECORDS_NAME)
    sets = _find_sets([photos] if prepared.job is not None else options.data_paths)
    answerer.require_fitting(sets)
    records = _digests(sets, storage)
    claim = claim_answers(prefix, prepared.definition, storage, overwrite=options.overwrite)
    told = read_answers(prefix, storage)
    # Rows that were tried again have changed the records.
    if claim is AnswersClaim.DONE and told.get("made_of") == records and _is_whole(told, options):
        print(f"{prefix}: these very answers are finished; nothing to do.")
        print_answers(told, prefix, again=_retry_command(prepared.flags))
        return EXIT_OK
    job = AnswerJob(
        definition=prepared.definition,
        run_id=run_id,
        output_prefix=prefix,
        kind=options.format,
        top_k=prepared.top_k,
        names=answerer.names,
        threshold=answerer.head.threshold,
        several_labels=answerer.several_labels,
        head_sha256=answerer.head.sha256,
        sets=tuple(record_set.prefix for record_set in sets),
        manifests=tuple(digest for _, digest in records),
        files=ranges_of(sets, options.rows_per_file),
    )
    about = _about(prepared, sets, records, run_id)
    _note_begun(prepared)
    try:
        held.delete_tree(job.parts_dir)
        write_file(held, job.head_path, answerer.head.to_bytes())
    except OSError as error:
        raise InputError(f"output_path: cannot write to {prefix!r} ({error}).") from error
    started = time.monotonic()
    _run(job, about, prepared, held)
    told = read_answers(prefix, storage)
    if prepared.lists is not None:
        with contextlib.suppress(OSError):  # The answers are finished.
            delete_other_lists(prepared.lists, sidecars(prefix), held)
    if told.get("run_id") != run_id:
        raise InputError(f"{prefix}: the job ended without answers. {go_on()}")
    print_answers(told, prefix, again=_retry_command(prepared.flags), seconds=time.monotonic() - started)
    return EXIT_OK


def _retry_command(flags: AnswerFlags) -> str:
    """The command that tries the failed photos again."""
    words = [word for _, _, words in by_flag(flags.own_words) if words[0] not in _OF_ONE_RUN for word in words]
    return program_command(PROGRAM, *words, *flags.beam_flags, "--retry_failures")


def _is_whole(told: dict[str, Any], options: AnswerOptions) -> bool:
    """Whether the files of answers are those that were written; with `--verify` by their digests."""
    if not options.verify:
        return True
    from preprocess.jobs.set_files import digest_of

    storage = BeamStorage(RetryPolicy(limit_sec=options.storage_retry_sec))
    folder = posixpath.dirname(options.output_path)
    with doing("reading the answers"):
        return all(
            digest_of(posixpath.join(folder, file["name"]), storage) == (file["num_bytes"], file["sha256"])
            for file in told["files"]
        )


def _about(prepared: _Prepared, sets: Sequence[RecordSet], records: list[list[str]], run_id: str) -> dict[str, Any]:
    """What `answers.json` says beside the answers themselves."""
    answerer = prepared.answerer
    about: dict[str, Any] = {
        "format": ANSWERS_FORMAT,
        "run_id": run_id,
        "definition": prepared.definition,
        "made_of": records,
        "answered_by": answerer.about,
        "backbone": sets[0].manifest.backbone.to_json(),
        "records": sum(record_set.manifest.records for record_set in sets),
    }
    if prepared.job is None:
        return about
    report = sets[0].report
    prefix = sets[0].prefix
    for name in ("rows_read", "failed", "skipped", "engines"):
        about[name] = report[name]
    about["failed_rows"] = sidecar_path(prefix, FAILED_NAME)
    about["skipped_rows"] = sidecar_path(prefix, SKIPPED_NAME)
    answered = about["records"]
    if about["rows_read"] != answered + sum(report["failed"].values()) + sum(report["skipped"].values()):
        raise AssertionError(f"{prefix}: the row accounting of the report is wrong.")
    return about


def _run(job: AnswerJob, about: dict[str, Any], prepared: _Prepared, held: Storage) -> None:
    """Answers for all shards, in this process or on the runner of the job.

    Raises:
      InputError: storage failed, a record set changed, or the runner failed.
    """
    target = prepared.target
    retry = RetryPolicy(limit_sec=prepared.flags.options.storage_retry_sec)
    requirements = prepared.job.requirements if prepared.job is not None else ()
    name = posixpath.basename(job.output_prefix)
    with (
        stops_are_explained(job.output_prefix) if target.is_here else contextlib.nullcontext(),
        contextlib.nullcontext() if target.is_here else worker_files(target.beam_options, requirements),
        doing(f"answering {name}", total=about["records"], unit="row", stays=True) as rows,
        progress.listening(rows.advance),
    ):
        try:
            if target.is_here:
                # Beam's local runner has one thread, too, and takes a fifth of a second to start.
                answerer = ShardAnswerer(job, prepared.storage)
                finish_answers([answerer.answer(file) for file in job.files], job, about, held)
            else:
                pipeline = beam.Pipeline(runner=target.runner, options=target.beam_options)
                _ = pipeline | "Answers" >> AnswerRecordSets(job, about, retry)
                pipeline.run().wait_until_finish()
        except Exception as error:
            _explain(job, error, is_here=target.is_here)
            raise


def _explain(job: AnswerJob, fault: Exception, *, is_here: bool) -> None:
    """Raises an `InputError` of one line for a fault that a person can repair. For all other faults it does nothing."""
    if isinstance(fault, InputError):
        raise fault
    if isinstance(fault, JobFailed | MachineFault | OSError):
        raise InputError(f"{job.output_prefix}: {fault}. {go_on()}") from fault
    if not is_here:
        raise InputError(f"{job.output_prefix}: the job failed ({cause_in_one_line(fault)}). {go_on()}") from fault
