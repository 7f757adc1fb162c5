"""Turns the Dataflow section of a recipe into flags of Beam; names jobs, and says where they can be watched.

This module does not use Beam, and sends no requests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from configs.cloud import CloudOptions, DataflowOptions
from configs.errors import InputError
from configs.gcp_project import find_project
from configs.given_flags import by_flag
from configs.machine_families import DISK_TYPES, default_disk_type
from configs.recipe import Recipe
from configs.section import FieldError
from configs.source_files import REPOSITORY
from pipelines.runners.machine_types import machine_of

RUNNER = "DataflowRunner"
SETUP_FILE = os.path.join(REPOSITORY, "setup.py")
# A folder in the bucket of the output, for the files of workers and for temporary files of Beam.
STAGING_FOLDER = "hugs_staging"
# Each thread runs its own bundle through the stage that embeds. All threads share the engine, the readers and the
# decoders of the process. One thread keeps the machine busy except at the end of a bundle, when it waits for the last
# batches; a second thread works on the next bundle then. More threads would only hold more images in memory (128
# decoded and up to 256 MiB encoded for each thread).
_HARNESS_THREADS = 2
# The peak memory of a worker's process with its decoders and one engine. Measured as the sum of the PSS of all its
# processes every 0.1 s, on 2 cores, with 144 photos of 12 megapixels (JPEG and PNG) and Inception v3: OpenVINO 1.1 GB,
# and 2.0 GB when it starts and converts the network; TensorFlow 2.4 GB, and 4.7 GB when it starts, converts the network
# and compares precisions. The rest is for machines with more cores, each of which adds a decoder.
_WORKER_RAM_GB = 6
_ACCELERATORS = {"t4": "nvidia-tesla-t4", "l4": "nvidia-l4"}
_FLEXRS = {"cost": "COST_OPTIMIZED", "speed": "SPEED_OPTIMIZED"}
_AUTOSCALING = {"throughput": "THROUGHPUT_BASED", "none": "NONE"}
# The flags that override fields of the recipe which are checked together.
_FLAG_OF_FIELD = {
    "machine_type": "--machine_type",
    "disk_gb": "--disk_size_gb",
    "disk_type": "--worker_disk_type",
    "flexrs": "--flexrs_goal",
    "autoscaling": "--autoscaling_algorithm",
}
# At most 1024 characters: https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.jobs.
_MAX_NAME_WORDS, _NAME_DIGEST_LENGTH = 900, 8
_REFUSED = ("--template_location", "--update", "--streaming", "--create_from_snapshot")
# Flags that have several names in Beam.
_ALIASES = (
    ("--machine_type", "--worker_machine_type"),
    ("--worker_disk_type", "--disk_type"),
    ("--no_use_public_ips", "--use_public_ips"),
    ("--labels", "--label"),
    ("--sdk_container_image", "--worker_harness_container_image"),
    ("--experiments", "--experiment"),
    ("--dataflow_service_options", "--dataflow_service_option"),
    ("--resource_hint", "--resource_hints"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The project and region of jobs, for the page and the commands that show them."""

    project: str
    region: str

    def console_url(self, job_id: str) -> str:
        """The page of a job."""
        return f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{job_id}?project={self.project}"

    def command(self, verb: str, *words: str) -> str:
        """A gcloud command about jobs, such as `describe JOB_ID`, as it can be typed."""
        where = (f"--region={self.region}", f"--project={self.project}")
        return shlex.join(["gcloud", "dataflow", "jobs", verb, *words, *where])


def job_name(output_prefix: str) -> str:
    """The name of the job that writes a set. The service refuses a second active job with the same name in a project.

    gs://bucket/hugs_20260102_030405/preproc/train gives hugs-20260102-030405-train-60c5c0a2. The last word is a digest
    of the whole output, so jobs of two buckets never have the same name.
    """
    folder, split = posixpath.split(output_prefix)
    job_dir = folder.removesuffix("/preproc").partition("://")[2].partition("/")[2]
    words = re.sub("[^a-z0-9]+", "-", f"{job_dir}/{split}".lower()).strip("-")[:_MAX_NAME_WORDS]
    digest = hashlib.sha256(output_prefix.encode()).hexdigest()[:_NAME_DIGEST_LENGTH]
    return f"{words if words[:1].isalpha() else f'embed-{words}'.rstrip('-')}-{digest}"


def staging_folder(output_prefix: str) -> str:
    """gs://BUCKET/hugs_staging of the bucket that a set is written to."""
    bucket = output_prefix.removeprefix("gs://").partition("/")[0]
    return f"gs://{bucket}/{STAGING_FOLDER}"


class GivenFlags:
    """Beam's flags on a command line."""

    def __init__(self, flags: Sequence[str]):
        self._flags = flags

    def values(self, flag: str) -> list[str]:
        """The values of a flag, under any of its names; an empty text for a flag without a value."""
        names = next((names for names in _ALIASES if flag in names), (flag,))
        return [value for name, value, _ in by_flag(self._flags) if name in names]

    def value(self, flag: str) -> str | None:
        """The last value of a flag, which overrides the others; None if the flag is not given."""
        return next(reversed(self.values(flag)), None)


def runner_kind(runner: str) -> str:
    """The runner with this name. Beam ignores case, and allows names with or without "Runner" and with a module."""
    return runner.rpartition(".")[2].lower().removesuffix("runner")


def uses_dataflow(flags: Sequence[str]) -> bool:
    """True if flags of Beam name its Dataflow runner."""
    return runner_kind(GivenFlags(flags).value("--runner") or "") == "dataflow"


def complete_flags(recipe: Recipe, given: Sequence[str], *, output_prefix: str) -> list[str]:
    """All of Beam's flags for a job that this machine starts; see `dataflow_flags`.

    Raises:
      InputError: nothing names a project, or `dataflow_flags` says why.
    """
    return dataflow_flags(
        recipe,
        given,
        output_prefix=output_prefix,
        project=find_project(recipe.cloud, GivenFlags(given).value("--project")),
        setup_file=SETUP_FILE if os.path.isfile(SETUP_FILE) else None,
    )


def dataflow_flags(
    recipe: Recipe, given: Sequence[str], *, output_prefix: str, project: str, setup_file: str | None
) -> list[str]:
    """All of Beam's flags for a job: those of the recipe, then the given ones, which override. It is a pure function.

    Args:
      recipe: its sections `cloud` and `dataflow` are used.
      given: Beam's flags on the command line. If they are an earlier result of this function, they do not change.
      output_prefix: of the set, on gs://.
      project: the project that pays.
      setup_file: the absolute path of the checkout's setup.py; None if the project is installed.

    Raises:
      InputError: the output is not on gs://, region and subnetwork disagree, or workers could not be given the project.
    """
    if not output_prefix.startswith("gs://"):
        raise InputError(
            f"output_path: Dataflow's workers write to a bucket. Received: {output_prefix!r}. Pass gs://BUCKET/..., "
            "or --runner DirectRunner to run here."
        )
    options, flags = recipe.dataflow, GivenFlags(given)
    _check_given(flags)
    region = flags.value("--region") or recipe.cloud.region
    CloudOptions(project=project, region=region)  # Checks what was given.
    _check_subnetwork(flags.value("--subnetwork") or options.subnetwork, region)
    machine_type = flags.value("--machine_type") or options.machine_type
    _check_memory(machine_type)
    _check_overridden(options, flags)
    staging = staging_folder(output_prefix)
    image = flags.value("--sdk_container_image") or options.image
    wanted: list[tuple[str, object | None]] = [
        ("--runner", RUNNER),
        ("--project", project),
        ("--region", region),
        ("--job_name", job_name(output_prefix)),
        ("--temp_location", f"{staging}/temp"),
        ("--staging_location", f"{staging}/jobs"),
        ("--machine_type", options.machine_type),
        ("--num_workers", options.num_workers),
        ("--max_num_workers", options.max_workers),
        ("--autoscaling_algorithm", _AUTOSCALING[options.autoscaling]),
        ("--disk_size_gb", options.disk_gb),
        ("--worker_disk_type", _disk_type(options.disk_type or default_disk_type(machine_type))),
        ("--network", options.network),
        ("--subnetwork", options.subnetwork),
        ("--no_use_public_ips", None if options.public_ips else ""),
        ("--service_account_email", recipe.cloud.service_account),
        ("--flexrs_goal", _FLEXRS.get(options.flexrs)),
        ("--number_of_worker_harness_threads", _HARNESS_THREADS),
        ("--sdk_container_image", image),
        ("--setup_file", None if image else setup_file),
    ]
    added = [f"{flag}={value}".removesuffix("=") for flag, value in wanted if value is not None]
    added = [word for word in added if not flags.values(word.partition("=")[0])]
    if not image and not flags.value("--setup_file") and setup_file is None:
        raise InputError(
            "dataflow.image: there is no checkout here whose setup.py workers could install, and no image. Run from a "
            "checkout of the project, set dataflow.image in the recipe (see the Dockerfile), or pass --setup_file."
        )
    if pins_versions(given, image):
        # The workers install the versions that are listed; nothing has to be downloaded here for them.
        added += [] if flags.values("--requirements_cache") else ["--requirements_cache=skip"]
    return [*added, *_added_to_lists(recipe, flags), *given]


def _added_to_lists(recipe: Recipe, flags: GivenFlags) -> Iterator[str]:
    """The flags of the recipe that may be given several times."""
    labels = {label.partition("=")[0] for label in flags.values("--labels")}
    yield from (f"--labels={key}={value}" for key, value in recipe.cloud.labels.items() if key not in labels)
    # One process a worker, whose threads and child processes use all cores, and so one copy of the network. (Runner v2
    # is what every job of this Beam runs on: it takes no flag.)
    if not any(value.endswith("use_multiple_sdk_containers") for value in flags.values("--experiments")):
        yield "--experiments=no_use_multiple_sdk_containers"
    accelerator = _ACCELERATORS.get(recipe.dataflow.gpu)
    has_accelerator = any("worker_accelerator=" in value for value in flags.values("--dataflow_service_options"))
    if accelerator and not has_accelerator:
        yield f"--dataflow_service_options=worker_accelerator=type:{accelerator};count:1;install-nvidia-driver"
    # Hints turn right fitting on, which goes neither with that option nor with FlexRS:
    # https://cloud.google.com/dataflow/docs/guides/right-fitting. Of the whole pipeline, since a step with hints of its
    # own is an environment of its own, and so a second container on each worker.
    flexible = recipe.dataflow.flexrs != "none" or flags.value("--flexrs_goal") is not None
    if not (accelerator or has_accelerator or flexible or flags.values("--resource_hint")):
        yield f"--resource_hint=min_ram={_WORKER_RAM_GB}GB"


def _disk_type(name: str | None) -> str | None:
    # Project and zone are the worker's own where they are left out.
    return f"compute.googleapis.com/projects//zones//diskTypes/{name}" if name else None


def _check_given(flags: GivenFlags) -> None:
    for flag in ("--temp_location", "--staging_location"):
        given_location = flags.value(flag)
        # Beam would take the one that is right for both, and if neither is, make a bucket.
        if given_location is not None and not re.fullmatch("gs://[^/]+/.+", given_location):
            raise InputError(f"{flag}: must be a folder in a bucket, gs://BUCKET/FOLDER. Received: {given_location!r}")
    given_setup = flags.value("--setup_file")
    if given_setup is not None and not os.path.dirname(given_setup):  # Beam changes to the folder that is named.
        raise InputError(f"--setup_file: must name a folder as well, for example ./setup.py. Received: {given_setup!r}")
    for flag in _REFUSED:
        if flags.values(flag):
            raise InputError(f"{flag}: embedding is a batch job that is run once. Leave the flag out.")


def _check_subnetwork(subnetwork: str | None, region: str) -> None:
    found = re.search("regions/([^/]+)/", subnetwork or "")
    if found and found[1] != region:
        raise InputError(
            f"subnetwork: {subnetwork} is not in the region of the job, {region}. Give one of that region, or set "
            "cloud.region (--region)."
        )


def _check_overridden(options: DataflowOptions, flags: GivenFlags) -> None:
    """Checks the recipe's section with the values of the command line, since some values exclude others.

    Raises:
      InputError: Dataflow or Compute Engine would refuse them.
    """
    given = {field: flags.value(flag) or "" for field, flag in _FLAG_OF_FIELD.items()}
    disk_gb, disk_type = given["disk_gb"], given["disk_type"].rpartition("/")[2]
    values: dict[str, Any] = {
        "machine_type": given["machine_type"] or None,
        "disk_gb": int(disk_gb) if re.fullmatch("0*[1-9][0-9]{0,5}", disk_gb) else None,  # 0 is Beam's default.
        "disk_type": disk_type if disk_type in DISK_TYPES else None,
        "flexrs": next((name for name, value in _FLEXRS.items() if value == given["flexrs"]), None),
        "autoscaling": next((name for name, value in _AUTOSCALING.items() if value == given["autoscaling"]), None),
    }
    changed = {field: value for field, value in values.items() if value is not None}
    if changed.get("autoscaling") == "none":
        changed["num_workers"] = options.num_workers or 1  # So that the section is whole: Beam has a flag for it.
    try:
        effective = dataclasses.replace(options, **changed)
    except FieldError as error:
        field = error.field.removeprefix(options.prefix)
        flag = _FLAG_OF_FIELD.get(field) if field in changed else None
        raise InputError(f"{flag}: {error}" if flag else str(error)) from error
    asked = any("worker_accelerator=" in value for value in flags.values("--dataflow_service_options"))
    if asked and effective.flexrs != "none":
        raise InputError(
            "--dataflow_service_options: FlexRS has no GPUs. Leave out worker_accelerator or --flexrs_goal."
        )


def _check_memory(machine_type: str) -> None:
    machine = machine_of(machine_type)
    if machine is not None and machine.memory_gb < _WORKER_RAM_GB:
        raise InputError(
            f"dataflow.machine_type: {machine_type} has {machine.memory_gb:g} GB of memory, and a worker may need "
            f"{_WORKER_RAM_GB} GB. Choose a larger one."
        )


def pins_versions(flags: Sequence[str], image: str | None) -> bool:
    """Whether workers are to install the versions of this machine: not with an image, or with requirements given."""
    given = GivenFlags(flags)
    return not image and not given.value("--sdk_container_image") and given.value("--requirements_file") is None
