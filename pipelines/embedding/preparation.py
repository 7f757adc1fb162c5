"""Finds the faults of a job of `pipelines.embed` before it starts, and makes the job ready to start.

The order matters. The first checks need neither storage nor a service. Then come requests that only read, then the
lists, which may take minutes. Checks that write something come last. A refused job leaves no files.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions

from configs.activity import doing
from configs.errors import InputError
from configs.option import definition_of, time_deciding
from configs.several_backbones import path_for, path_of_each
from pipelines.checks.earlier_versions import as_begun, with_hashes
from pipelines.checks.embed_flags import EmbedFlags, JobOptions, of_each_backbone
from pipelines.checks.output_claim import Output, check_prefix
from pipelines.checks.preflight import (
    ScannedLists,
    check_against,
    check_reachable,
    check_remote,
    read_label_dict,
    scan_lists,
)
from pipelines.checks.web_hosts import check_web_hosts
from pipelines.embedding.prepared_job import PreparedJob
from pipelines.embedding.submission import check_options
from pipelines.planning.file import find_planned_cost, runs_on
from pipelines.runners.beam_options import (
    has_one_worker,
    is_dataflow,
    is_local,
    make_runner,
    moves_elements,
    parse_beam_options,
)
from pipelines.runners.dask import complete_dask_flags, uses_dask
from pipelines.runners.dataflow import complete_flags, pins_versions, staging_folder
from pipelines.runners.dataflow_service import check_credentials, check_service, check_writable
from pipelines.runners.worker_requirements import worker_requirements
from preprocess.backbones.backbone import IMAGENET, RANDOM, BackboneSpec, check_weights, complete_spec
from preprocess.backbones.network_files import digest_of_network, network_file_copy
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import BackboneSet, EmbedOptions, EngineLoader
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.engines.libraries import versions_of
from preprocess.engines.select import EngineSpec, check_engine
from preprocess.images.resample import resize_state
from preprocess.jobs import embedding_cache
from preprocess.jobs.job import Job, Retry
from preprocess.jobs.planned_cost import PlannedCost
from preprocess.jobs.set_files import digest_of
from preprocess.lists.blocks import Spread
from preprocess.lists.labels import LabelDict
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.views import Views
from preprocess.storage.base import Storage
from preprocess.storage.uris import has_scheme

# Those that are not installed are left out.
_REPORTED_PACKAGES = ("apache-beam", "tensorflow", "keras", "openvino", "pillow", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """The runner of a job, with its options.

    Attributes:
      runner: of the pipeline.
      beam_options: of the pipeline.
      beam_flags: the flags that give these options, with those of the recipe.
    """

    runner: Any
    beam_options: PipelineOptions
    beam_flags: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        """Whether the job runs in this process."""
        return is_local(self.beam_options)

    @property
    def on_dataflow(self) -> bool:
        """Whether the job runs in Google's Dataflow."""
        return is_dataflow(self.beam_options)

    @property
    def installs_our_versions(self) -> bool:
        """Whether workers install the versions of packages that this machine has."""
        return self.on_dataflow and pins_versions(self.beam_flags, None)


def prepare_job(
    flags: EmbedFlags,
    *,
    labels: LabelDict | None = None,
    expects: BackboneIdentity | None = None,
    unsaid: Sequence[str] = (),
    keeps_finished: bool = False,
) -> PreparedJob:
    """Checks everything that can be checked before a job starts.

    Args:
      flags: of the command line.
      labels: the dictionary; None for the one that the flags name.
      expects: the only network that may embed; None for the one that the flags name, whatever its weights are.
      unsaid: lists that no person wrote; how they are read is not said.
      keeps_finished: records of the same job that are finished are kept, also with `overwrite`.

    Raises:
      InputError: something that the user gave is wrong.
    """
    options, each = flags.options, of_each_backbone(flags.options)
    target = choose_target(flags)
    # The lists are read with the credentials that the flags name, as in the pipeline.
    FileSystems.set_options(target.beam_options)
    specs = {name: BackboneSpec.of_options(of_one) for name, of_one in each.items()}
    engine = EngineSpec(engine=options.engine, precision=options.precision)
    _check_workers(target, engine)
    images = ImageSource.of_options(options)
    storage = BeamStorage(images.retry)
    with doing("checking that storage answers" if target.is_here else "checking that storage and the runner answer"):
        _check_services(
            each.values(),
            target,
            storage,
            dictionary=[options.input_dict] if labels is None else [],
            dry_run=options.dry_run,
        )
    if labels is None:
        labels = read_label_dict(options.input_dict, storage)
    lists = scan_lists(
        options.input_path,
        labels=labels,
        unknown_labels=options.unknown_labels,
        storage=storage,
        sample_size=CALIBRATION_IMAGES if options.precision == "int8" else 0,
        remote_images_only=target.on_dataflow,
        unsaid=unsaid,
    )
    check_web_hosts(lists, connections_per_host=options.connections_per_host, from_here=target.is_here)
    if target.is_here:
        check_reachable(lists.bucket_images)
    with doing("checking the weights and the output"):
        weights_folders = {name: _check_weights(flags, target, spec, storage) for name, spec in specs.items()}
        specs = {name: complete_spec(spec, storage) for name, spec in specs.items()}
        for of_one in each.values():
            _check_places(of_one, storage)
        planned_cost = _planned_cost(options, target, lists, storage)
        sets = [
            _set_of(
                name,
                of_one,
                specs[name],
                engine,
                lists=lists,
                labels=labels,
                planned_cost=planned_cost,
                weights_sha256=_weights_sha256(flags, target, specs[name], storage),
                images=images,
                expects=expects,
                is_alone=len(each) == 1,
                storage=storage,
                replaces=options.overwrite and not keeps_finished,
            )
            for name, of_one in each.items()
        ]
    if target.on_dataflow or options.dry_run:
        # A fault at one of several outputs must be found before the first job is submitted.
        for made in sets:
            _look_at_output(made.job, options, storage)
    first, *further = sets
    return PreparedJob(
        job=first.job,
        labels=labels,
        options=EmbedOptions(
            unknown_labels=options.unknown_labels,
            load_engine=first.load_engine,
            images=dataclasses.replace(images, size=first.size),
            rows_per_shard=options.rows_per_shard,
            batch_size=options.batch_size,
            spread=_spread(options, target, lists),
        ),
        further=tuple(further),
        runner=target.runner,
        beam_options=target.beam_options,
        storage=storage,
        flags=(*(word for word in flags.own_words if word != "--dry_run"), *target.beam_flags),
        weights_folder=next((folder for folder in weights_folders.values() if folder is not None), None),
        requirements=tuple(worker_requirements()) if target.installs_our_versions else (),
        overwrite=options.overwrite,
        verify=options.verify,
        wait=options.wait,
        dry_run=options.dry_run,
        program=flags.program,
    )


def _set_of(
    name: str,
    options: JobOptions,
    spec: BackboneSpec,
    engine: EngineSpec,
    *,
    lists: ScannedLists,
    labels: LabelDict,
    planned_cost: PlannedCost | None,
    weights_sha256: str | None,
    images: ImageSource,
    expects: BackboneIdentity | None,
    is_alone: bool,
    storage: Storage,
    replaces: bool,
) -> BackboneSet:
    """The set of one backbone; `is_alone` if the run makes no other, `replaces` if a finished one is replaced."""
    job = _job_of(options, spec, lists, labels, planned_cost, weights_sha256)
    job = as_begun(with_hashes(job), storage, overwrite=replaces)
    size = spec.image.size
    return BackboneSet(
        job=job if is_alone else dataclasses.replace(job, backbone_name=name),
        load_engine=EngineLoader(
            backbone=spec,
            engine=dataclasses.replace(engine, expected_images=lists.rows * images.num_views),
            calibration=lists.sample,
            images=dataclasses.replace(images, size=size),
            expects=expects,
        ),
        size=size,
    )


def _look_at_output(job: Job, options: JobOptions, storage: Storage) -> None:
    output = Output(job, storage)
    with doing("looking at the output"):
        output.claim(overwrite=options.overwrite, verify=options.verify and options.dry_run)
    if output.damage and options.dry_run and options.verify:
        raise InputError(f"{output.damage[0]}. Without --dry_run, what is lost of the set is embedded again.")


def choose_target(flags: EmbedFlags) -> Target:
    """The runner that the flags name; for Dataflow with the flags of Beam that the recipe gives.

    Raises:
      InputError: a flag is unknown, there is no such runner, or workers could not read or write what the job does.
    """
    options, beam_flags = flags.options, flags.beam_flags
    if uses_dask(beam_flags):
        beam_flags = tuple(complete_dask_flags(beam_flags))
    beam_options = parse_beam_options(beam_flags, own_flags=flags.own_names)
    if is_dataflow(beam_options):
        of_flags = {
            "input_path": options.input_path,
            "embedding_cache": options.embedding_caches,
            "against": options.against,
        }
        check_remote(of_flags)
        # Several sets are made by one job, whose name follows from all of them.
        names = tuple(of_each_backbone(options))
        output = (
            path_for(path_of_each(options.output_path), "-".join(names))
            if len(names) > 1
            else path_for(options.output_path, names[0])
        )
        beam_flags = tuple(complete_flags(flags.recipe, beam_flags, output_prefix=output))
        beam_options = parse_beam_options(beam_flags, own_flags=flags.own_names)
    return Target(runner=make_runner(beam_options), beam_options=beam_options, beam_flags=beam_flags)


def _spread(options: JobOptions, target: Target, lists: ScannedLists) -> Spread:
    """How the blocks are divided among the workers of the runner."""
    if has_one_worker(target.beam_options):
        return Spread()
    return Spread.over_workers(
        rows=lists.rows,
        rows_per_block=options.rows_per_shard,
        lists=len(lists.paths),
        moves_blocks=moves_elements(target.runner, target.beam_options),
    )


def _check_workers(target: Target, engine: EngineSpec) -> None:
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


def _check_services(
    each: Collection[JobOptions], target: Target, storage: BeamStorage, *, dictionary: Sequence[str], dry_run: bool
) -> None:
    """Checks with a few requests that storage and the runner's service give us access.

    Raises:
      InputError: one of them denies access, or Beam refuses its options.
    """
    paths = [*dictionary]
    for options in each:
        predictions = [options.prediction] if options.prediction else []
        paths += [*options.input_path, options.output_path]
        paths += [*options.embedding_caches, *options.against, *predictions]
    for path in dict.fromkeys(paths):
        storage.require_scheme(path)
    # First: without a network, the login is not what is missing.
    check_reachable(paths)
    if target.on_dataflow:
        check_credentials(target.beam_options)
    if not target.is_here:
        check_options(target.runner, target.beam_options)
    if target.on_dataflow:
        check_service(target.beam_options)
        if not dry_run:
            check_writable(target.beam_options, storage)


def _check_weights(flags: EmbedFlags, target: Target, spec: BackboneSpec, storage: Storage) -> str | None:
    """Checks that the weights exist, unless the workers' image has them.

    Returns:
      The folder into which they are copied for workers; None if they are not copied.

    Raises:
      InputError: they are not on this machine.
    """
    if flags.recipe.dataflow.weights_in_image and not target.is_here:
        return None
    check_weights(spec, storage)
    if target.is_here or spec.is_random or not flags.options.output_path.startswith("gs://"):
        return None
    return f"{staging_folder(flags.options.output_path)}/weights"


def _weights_sha256(flags: EmbedFlags, target: Target, spec: BackboneSpec, storage: Storage) -> str | None:
    """The digest of a file of weights or of a network, whose content may change under the same name; else None.

    Raises:
      InputError: the file cannot be read.
    """
    weights = spec.weights
    if weights in (RANDOM, IMAGENET) or (flags.recipe.dataflow.weights_in_image and not target.is_here):
        return None
    try:
        if spec.is_file:
            with network_file_copy(weights, storage) as path:
                return digest_of_network(path)
        return digest_of(weights, storage)[1]
    except OSError as error:
        raise InputError(f"weights: {weights!r} cannot be read ({error.strerror or error}).") from error


def _check_places(options: JobOptions, storage: Storage) -> None:
    """Checks the places that the job writes to, and the sets that it compares with.

    Raises:
      InputError: one of them cannot be used.
    """
    check_prefix(options.output_path, create=not options.dry_run)
    check_against(options.against, storage=storage)
    for folder in options.embedding_caches if not options.dry_run else ():
        embedding_cache.check(folder, storage)  # This writes a file.


def _planned_cost(options: JobOptions, target: Target, lists: ScannedLists, storage: Storage) -> PlannedCost | None:
    if options.prediction is None:
        return None
    return find_planned_cost(
        options.prediction,
        lists=lists,
        options=time_deciding(options),
        views=Views.of_options(options),
        machines=runs_on(target.beam_options),
        storage=storage,
    )


def _job_of(
    options: JobOptions,
    spec: BackboneSpec,
    lists: ScannedLists,
    labels: LabelDict,
    planned_cost: PlannedCost | None,
    weights_sha256: str | None,
) -> Job:
    # Without a weights file the definition stays as earlier versions wrote it, and with it the key of the job.
    of_weights = {} if weights_sha256 is None else {"weights_sha256": weights_sha256}
    return Job(
        definition=_definition(options, spec, lists, labels) | of_weights,
        run_id=uuid.uuid4().hex[:12],
        output_prefix=options.output_path,
        compression=options.compression,
        labels=labels.names,
        input_paths=lists.paths,
        input_sha256=lists.sha256,
        input_formats=lists.formats,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions=_versions(),
        max_failed_percent=options.max_failed_percent,
        against=options.against,
        embedding_cache=options.embedding_cache,
        retry=_retry(options.retry_failures),
        planned_cost=planned_cost,
        views=Views.of_options(options),
    )


def _definition(options: JobOptions, spec: BackboneSpec, lists: ScannedLists, labels: LabelDict) -> dict[str, Any]:
    """The definition of the job: everything that decides its records."""
    # Of a network of the table it is as earlier versions wrote it.
    backbone = {"backbone": spec.name} if spec.is_file else {}
    paths = [path if has_scheme(path) else os.path.abspath(path) for path in lists.paths]
    # Lists that earlier versions could read leave no entry, and so jobs keep the key that they had.
    formats = [found.to_json() for found in lists.formats]
    of_formats = {} if all(found.is_plain for found in lists.formats) else {"list_formats": formats}
    return {
        **of_formats,
        "input_path": [list(pair) for pair in zip(paths, lists.sha256, strict=True)],
        "input_dict": labels.sha256,
        "image_definition": spec.image.name,
        **definition_of(options, "records"),
        **backbone,
    }


def _versions() -> dict[str, str]:
    packages = {name: version for name in _REPORTED_PACKAGES if (version := versions_of(name)[name]) is not None}
    return {"python": sys.version.split()[0], **packages, "resize": resize_state()}


def _retry(reasons: str | None) -> Retry | None:
    if reasons is None:
        return None
    names = frozenset(filter(None, (name.strip() for name in reasons.split(","))))
    return Retry(reasons=None if names == {"all"} else names, of_finished_set=True)
