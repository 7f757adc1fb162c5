"""The description of a training job for Vertex AI: containers, arguments and machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from configs.errors import InputError
from configs.recipe import Recipe
from trainer.options import TrainingOptions, parse_options

# Images of Vertex AI that install a Python package themselves. As of 2026, those with TensorFlow have Python 3.10,
# which the recipe refuses. Later images will have the same prefix.
_PREBUILT = re.compile(r"([a-z]+-docker\.pkg\.dev/vertex-ai|gcr\.io/cloud-aiplatform)/training/")
# Vertex AI mounts all buckets at /gcs, so pip needs neither credentials nor a client. $0 is the lock, $1 is the
# package, and the other arguments are the flags. So nothing needs to be quoted twice.
_INSTALL_AND_TRAIN = (
    'package="$1"; shift; python -m pip install --no-cache-dir --no-deps --require-hashes --requirement "$0" '
    '&& python -m pip install --no-cache-dir --no-deps --no-build-isolation "$package" '
    '&& exec python -m trainer.task "$@"'
)
_MOUNT = "/gcs/"
_REACHABLE = ("gs://", _MOUNT)
_MAX_NAME, _DIGEST_LENGTH = 128, 8
_WEIGHTS_WITHOUT_FILE = ("imagenet", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedPackage:
    """The location of the trainer in the bucket, for containers that do not have it.

    Attributes:
      uri: the URI (gs://) of the source distribution.
      lock_uri: the URI (gs://) of the lock of its dependencies.
    """

    uri: str
    lock_uri: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The input and the output of a training job.

    Attributes:
      job_dir: the gs:// folder that has the records in `preproc`.
      job_id: the folder in it for checkpoints, metrics and the model.
      has_test: whether there is a finished test set.
      flags: the trainer's flags that the user gave; they override the recipe.
    """

    job_dir: str
    job_id: str
    has_test: bool
    flags: tuple[str, ...] = ()

    @property
    def output_path(self) -> str:
        """The output folder of the trainer."""
        return f"{self.job_dir}/{self.job_id}"

    @property
    def display_name(self) -> str:
        """A name that depends only on the output, so another job with this name writes to the same output."""
        return display_name_of(self.output_path)


def display_name_of(uri: str) -> str:
    """A name for a folder in a bucket, of at most 128 characters. No two folders have the same."""
    path = uri.removeprefix("gs://")
    if len(path) <= _MAX_NAME:
        return path
    digest = hashlib.sha256(path.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{digest} {path[len(digest) + 1 - _MAX_NAME :]}"


def trainer_arguments(job: TrainingJob, recipe: Recipe) -> list[str]:
    """The trainer's command line. The recipe's options become flags: the container does not have the recipe's file.

    Raises:
      InputError: the trainer would refuse the flags, or they name a file on this machine.
    """
    given = {flag.split("=")[0].removeprefix("--") for flag in job.flags if flag.startswith("--")}
    if "recipe" in given:
        raise InputError("--recipe: the container has no recipes of yours. Set RECIPE in front of the command.")
    if "output_path" in given:
        raise InputError("--output_path: is PATH/JOB_ID. Give the JOB_ID of the folder instead.")
    arguments = []
    for split in ("train", "eval", *(["test"] if job.has_test else [])):
        arguments += [f"--{split}_data_paths={job.job_dir}/preproc/{split}"]
    arguments += [f"--output_path={job.output_path}", *_recipe_flags(recipe, given), *job.flags]
    options = parse_options(arguments, environ={})
    _require_reachable(options, recipe)
    if options.tune and recipe.vertex.replicas > 1:
        raise InputError(f"--tune: takes one worker, and vertex.replicas of the recipe is {recipe.vertex.replicas}.")
    return arguments


def _recipe_flags(recipe: Recipe, given: set[str]) -> list[str]:
    train, page = recipe.train, recipe.page.to_json()
    values = {**dataclasses.asdict(train), "page": json.dumps(page) if page else None}
    # Both flags say how long to train, and the trainer refuses both together.
    length = {"epochs", "max_steps"}
    values.pop("max_steps" if train.epochs is not None else "epochs")
    skipped = given | (length if given & length else set())
    return [f"--{name}={value}" for name, value in values.items() if name not in skipped and value is not None]


def _require_reachable(options: TrainingOptions, recipe: Recipe) -> None:
    for field, paths in options.paths_that_are("read").items():
        if field == "weights" and recipe.vertex.trainer_in_image:
            continue  # The image may have these files.
        for path in paths:
            if not path.startswith(_REACHABLE) and path not in _WEIGHTS_WITHOUT_FILE:
                raise InputError(
                    f"--{field}: the container does not have the files of this machine. Copy it to the bucket and give "
                    f"gs://BUCKET/... Received: {path!r}."
                )
    for field, paths in options.paths_that_are("written").items():
        for path in paths:
            if not path.startswith(_REACHABLE):
                raise InputError(
                    f"--{field}: must be in a bucket, because the container's disk is temporary. Received: {path!r}."
                )


def require_weights(weights: str, job: TrainingJob, recipe: Recipe) -> None:
    """Checks that the container can get the weights of the network that made the records.

    Args:
      weights: the weights that the records' manifest names.
      job: the training job.
      recipe: if its image has the trainer, the image may also have the file.

    Raises:
      InputError: the weights are a file on another machine.
    """
    elsewhere = recipe.vertex.trainer_in_image or any(flag.split("=")[0] == "--weights" for flag in job.flags)
    if not elsewhere and weights not in _WEIGHTS_WITHOUT_FILE and not weights.startswith(_REACHABLE):
        raise InputError(
            f"weights: the records were made with the weights in {weights}, a file that the container does not have. "
            "Copy it to the bucket and add: -- --weights gs://BUCKET/..."
        )


def custom_job_spec(job: TrainingJob, recipe: Recipe, *, image: str, package: StagedPackage | None) -> dict[str, Any]:
    """The `CustomJobSpec` of Vertex AI.

    Args:
      job: the training job.
      recipe: the sections `cloud`, `vertex` and `train` are used.
      image: the container image.
      package: the files that the container installs; None if the image has the trainer.

    Returns:
      The input of `gcloud ai custom-jobs create --config`, with the names of Vertex AI's API.

    Raises:
      InputError: see `trainer_arguments`.
    """
    vertex = recipe.vertex
    pool = {
        "machineSpec": {"machineType": vertex.machine_type},
        "replicaCount": 1,
        **_container(image, package, trainer_arguments(job, recipe)),
    }
    pools = [pool]
    if vertex.replicas > 1:
        # The first pool is the chief and must be one machine. Vertex AI describes the whole cluster in TF_CONFIG.
        pools.append({**pool, "replicaCount": vertex.replicas - 1})
    spec: dict[str, Any] = {
        "workerPoolSpecs": pools,
        # After a restart, the trainer goes on from its last checkpoint.
        "scheduling": {"timeout": f"{vertex.timeout_hours * 3600}s", "restartJobOnWorkerRestart": True},
    }
    if recipe.cloud.service_account:
        spec["serviceAccount"] = recipe.cloud.service_account
    if vertex.network:
        spec["network"] = vertex.network
    return spec


def _container(image: str, package: StagedPackage | None, arguments: Sequence[str]) -> dict[str, Any]:
    if package is None:
        return {"containerSpec": {"imageUri": image, "args": list(arguments)}}
    if _PREBUILT.match(image):
        return {
            "pythonPackageSpec": {
                "executorImageUri": image,
                "packageUris": [package.uri],
                "pythonModule": "trainer.task",
                "args": list(arguments),
            }
        }
    # This includes the default, Python 3.11 of Docker Hub.
    lock, path = (f"{_MOUNT}{uri.removeprefix('gs://')}" for uri in (package.lock_uri, package.uri))
    command = ["sh", "-c", _INSTALL_AND_TRAIN, lock, path]
    return {"containerSpec": {"imageUri": image, "command": command, "args": list(arguments)}}
