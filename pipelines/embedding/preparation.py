"""Finds out what is wrong with a job of `pipelines.embed` before it starts, and makes it ready to start.

The order matters: what is asked of nobody comes first, then what storage and services say about reading, then the
lists, which may take minutes, and what writes comes last. Nothing is left behind by a job that is refused.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import sys
import uuid
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions

from configs.errors import InputError
from configs.option import definition_of, time_deciding
from pipelines.checks.embed_flags import EmbedFlags, JobOptions
from pipelines.checks.output_claim import Output, check_prefix
from pipelines.checks.preflight import (
    CALIBRATION_IMAGES,
    ScannedLists,
    check_against,
    check_reachable,
    check_remote,
    read_label_dict,
    scan_lists,
)
from pipelines.embedding.prepared_job import PreparedJob
from pipelines.embedding.submission import check_options
from pipelines.planning.file import find_prediction, runs_on
from pipelines.runners.beam_options import is_dataflow, is_local, make_runner, parse_beam_options
from pipelines.runners.dataflow import complete_flags, pins_versions, staging_folder
from pipelines.runners.dataflow_service import check_credentials, check_service, check_writable
from pipelines.runners.worker_requirements import worker_requirements
from preprocess.backbones.backbone import IMAGENET, RANDOM, BackboneSpec, check_weights
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EmbedOptions, EngineLoader
from preprocess.engines.select import EngineSpec, check_engine
from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.jobs import embedding_cache
from preprocess.jobs.job import Job, Retry
from preprocess.jobs.planned_cost import Prediction
from preprocess.jobs.set_files import digest_of
from preprocess.lists.labels import LabelDict
from preprocess.storage.base import Storage
from preprocess.storage.uris import has_scheme

_REPORTED_PACKAGES = ("apache-beam", "tensorflow", "keras", "pillow", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Target:
    """Where a job is to run.

    Attributes:
      runner: of the pipeline.
      beam_options: of the pipeline.
      beam_flags: that give them, those of the recipe included.
    """

    runner: Any
    beam_options: PipelineOptions
    beam_flags: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        return is_local(self.beam_options)

    @property
    def on_dataflow(self) -> bool:
        return is_dataflow(self.beam_options)

    @property
    def installs_our_versions(self) -> bool:
        """Whether workers install what this machine has."""
        return self.on_dataflow and pins_versions(self.beam_flags, None)


def prepare_job(flags: EmbedFlags) -> PreparedJob:
    """Checks everything that can be checked before a job starts.

    Raises:
      InputError: something that the user gave is wrong.
    """
    options = flags.options
    target = _choose_target(flags)
    # What reads the lists takes the credentials that the flags name, as the pipeline does.
    FileSystems.set_options(target.beam_options)
    spec = BackboneSpec(architecture=options.backbone, weights=options.weights, seed=options.seed)
    engine = EngineSpec(engine=options.engine, precision=options.precision)
    _check_workers(target, engine)
    images = ImageSource.of_options(options)
    storage = BeamStorage(images.retry)
    _check_services(options, target, storage)
    labels = read_label_dict(options.input_dict, storage)
    lists = scan_lists(
        options.input_path,
        labels=labels,
        unknown_labels=options.unknown_labels,
        storage=storage,
        sample_size=CALIBRATION_IMAGES if options.precision == "int8" else 0,
        remote_images_only=target.on_dataflow,
    )
    weights_folder = _check_weights(flags, target, spec, storage)
    _check_places(options, storage)
    job = _job_of(
        options, lists, labels, _prediction(options, target, lists, storage), _weights_sha256(flags, target, storage)
    )
    if target.on_dataflow or options.dry_run:
        # What is wrong with one of several outputs is to be found before the first job is handed over.
        output = Output(job, storage)
        output.claim(overwrite=options.overwrite, verify=options.verify and options.dry_run)
        if output.damage and options.dry_run and options.verify:
            raise InputError(f"{output.damage[0]}. Without --dry_run, what is lost of the set is embedded again.")
    return PreparedJob(
        job=job,
        labels=labels,
        options=EmbedOptions(
            unknown_labels=options.unknown_labels,
            load_engine=EngineLoader(backbone=spec, engine=engine, calibration=lists.sample, images=images),
            images=images,
            rows_per_shard=options.rows_per_shard,
            batch_size=options.batch_size,
        ),
        runner=target.runner,
        beam_options=target.beam_options,
        storage=storage,
        flags=(*(word for word in flags.own_words if word != "--dry_run"), *target.beam_flags),
        weights_folder=weights_folder,
        requirements=tuple(worker_requirements(int8=options.precision == "int8"))
        if target.installs_our_versions
        else (),
        overwrite=options.overwrite,
        verify=options.verify,
        wait=options.wait,
        dry_run=options.dry_run,
    )


def _choose_target(flags: EmbedFlags) -> _Target:
    """Where the flags let the job run; on Dataflow, with the flags of Beam that the recipe gives.

    Raises:
      InputError: a flag is unknown, there is no such runner, or workers could not read or write what the job does.
    """
    options, beam_flags = flags.options, flags.beam_flags
    beam_options = parse_beam_options(beam_flags, own_flags=flags.own_names)
    if is_dataflow(beam_options):
        of_flags = {
            "input_path": options.input_path,
            "embedding_cache": options.embedding_caches,
            "against": options.against,
        }
        check_remote(of_flags)
        beam_flags = tuple(complete_flags(flags.recipe, beam_flags, output_prefix=options.output_path))
        beam_options = parse_beam_options(beam_flags, own_flags=flags.own_names)
    return _Target(runner=make_runner(beam_options), beam_options=beam_options, beam_flags=beam_flags)


def _check_workers(target: _Target, engine: EngineSpec) -> None:
    """What can be said of the workers without asking anybody.

    Raises:
      InputError: they will lack the engine.
    """
    if target.is_here or target.installs_our_versions:
        # Workers have what this machine has; all others may have more.
        check_engine(engine)
    if target.installs_our_versions and target.beam_options.view_as(WorkerOptions).use_public_ips is False:
        print(
            "note: workers without public addresses install packages only if Cloud NAT lets them; a dataflow.image "
            "has all that they need",
            file=sys.stderr,
        )


def _check_services(options: JobOptions, target: _Target, storage: Storage) -> None:
    """Whether storage and the runner's service let us in, in a few requests.

    Raises:
      InputError: one of them does not, or Beam refuses its options.
    """
    if target.on_dataflow:
        check_credentials(target.beam_options)
    predictions = [options.prediction] if options.prediction else []
    paths = [*options.input_path, options.input_dict, options.output_path]
    check_reachable([*paths, *options.embedding_caches, *options.against, *predictions])
    if not target.is_here:
        check_options(target.runner, target.beam_options)
    if target.on_dataflow:
        check_service(target.beam_options)
        if not options.dry_run:
            check_writable(target.beam_options, storage)


def _check_weights(flags: EmbedFlags, target: _Target, spec: BackboneSpec, storage: Storage) -> str | None:
    """Looks for the weights, unless the workers' image has them; gives the folder to put them into for workers.

    Raises:
      InputError: they are not on this machine.
    """
    if flags.recipe.dataflow.weights_in_image and not target.is_here:
        return None
    check_weights(spec, storage)
    if target.is_here or spec.is_random or not flags.options.output_path.startswith("gs://"):
        return None
    return f"{staging_folder(flags.options.output_path)}/weights"


def _weights_sha256(flags: EmbedFlags, target: _Target, storage: Storage) -> str | None:
    """Of a weights file, whose name may stay when its content is another; None for all other weights.

    Raises:
      InputError: it cannot be read.
    """
    weights = flags.options.weights
    if weights in (RANDOM, IMAGENET) or (flags.recipe.dataflow.weights_in_image and not target.is_here):
        return None
    try:
        return digest_of(weights, storage)[1]
    except OSError as error:
        raise InputError(f"weights: {weights!r} cannot be read ({error.strerror or error}).") from error


def _check_places(options: JobOptions, storage: Storage) -> None:
    """What the job writes to, and the sets that it compares with.

    Raises:
      InputError: one of them cannot be used.
    """
    check_prefix(options.output_path, create=not options.dry_run)
    check_against(options.against, storage=storage)
    for folder in options.embedding_caches if not options.dry_run else ():
        embedding_cache.check(folder, storage)  # Writes to it.


def _prediction(options: JobOptions, target: _Target, lists: ScannedLists, storage: Storage) -> Prediction | None:
    if options.prediction is None:
        return None
    return find_prediction(
        options.prediction,
        lists=lists,
        options=time_deciding(options),
        machines=runs_on(target.beam_options),
        storage=storage,
    )


def _job_of(
    options: JobOptions,
    lists: ScannedLists,
    labels: LabelDict,
    prediction: Prediction | None,
    weights_sha256: str | None,
) -> Job:
    # Jobs without a weights file are called what they were called before this was part of the definition.
    of_weights = {} if weights_sha256 is None else {"weights_sha256": weights_sha256}
    return Job(
        definition=_definition(options, lists, labels) | of_weights,
        run_id=uuid.uuid4().hex[:12],
        output_prefix=options.output_path,
        compression=options.compression,
        labels=labels.names,
        input_paths=lists.paths,
        input_sha256=lists.sha256,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions=_versions(),
        max_failed_percent=options.max_failed_percent,
        against=options.against,
        embedding_cache=options.embedding_cache,
        retry=_retry(options.retry_failures),
        prediction=prediction,
    )


def _definition(options: JobOptions, lists: ScannedLists, labels: LabelDict) -> dict[str, Any]:
    """What makes the records what they are."""
    paths = [path if has_scheme(path) else os.path.abspath(path) for path in lists.paths]
    return {
        "input_path": [list(pair) for pair in zip(paths, lists.sha256, strict=True)],
        "input_dict": hashlib.sha256(json.dumps(list(labels.names)).encode()).hexdigest(),
        "image_definition": IMAGE_DEFINITION,
        **definition_of(options, "records"),
    }


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _REPORTED_PACKAGES}
    return {"python": sys.version.split()[0], **packages}


def _retry(reasons: str | None) -> Retry | None:
    if reasons is None:
        return None
    names = frozenset(filter(None, (name.strip() for name in reasons.split(","))))
    return Retry(reasons=None if names == {"all"} else names, of_finished_set=True)
