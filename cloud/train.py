"""Trains on Vertex AI, on the records that a Dataflow job made. `./hugs_train.sh gs://BUCKET PATH` runs this.

python -m cloud.train --data_dir gs://BUCKET --job_dir gs://BUCKET/hugs_DATE_TIME
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from cloud.gcloud import Gcloud, Runner, flags_of, run_command
from cloud.hub_images import PYTHON_IMAGE, hub_image, require_repository
from cloud.job_storage import is_there, job_storage, put_file, read_file
from cloud.options import CloudRunOptions
from cloud.trainer_package import TrainerPackage, build_package
from cloud.training_job import StagedPackage, TrainingJob, custom_job_spec, require_weights
from configs.activity import doing
from configs.arguments import OneLineParser
from configs.bucket_folder import require_folder
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.list_names import SPLITS
from configs.option import REQUIRED, add_flags, given_values, option, options_of
from configs.printed_commands import script_command
from configs.program import run_program
from configs.recipe import Recipe, load_recipe
from configs.rules import Switch, Text
from preprocess.records.record_set import MANIFEST_NAME, Manifest, sidecar_path
from preprocess.storage.base import Storage
from trainer.data.record_sets import RecordSet, require_agreement
from trainer.export.model_info import MODEL_INFO_PATH

EXIT_JOB_FAILED = 1
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_CONFIG_NAME = "custom_job.yaml"
_SUCCEEDED = "JOB_STATE_SUCCEEDED"
_ENDED = (_SUCCEEDED, "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")
_POLL_SEC = 20.0
_POLL_FAILURES = 5


@dataclasses.dataclass(frozen=True)
class _JobId(Text):
    """The name of a folder in the job directory."""

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "letters, digits, '.', '_' and '-', the first a letter or digit, and not 'preproc'"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and bool(_JOB_ID.fullmatch(value)) and value != "preproc"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRunOptions(CloudRunOptions):
    """The options of the program."""

    data_dir: str = option(
        REQUIRED,
        Text(anything=True),
        help="the bucket that has the lists",
        decides="neither",
        metavar="URI",
    )
    job_dir: str = option(
        REQUIRED,
        Text(anything=True),
        help="the job directory that has the records",
        decides="neither",
        metavar="URI",
    )
    job_id: str = option("training", _JobId(), help="folder in job_dir for the result", decides="neither")
    wait: bool = option(
        False,
        Switch(can_be_unset=False),
        help="wait for the end; exit with 1 if training failed",
        decides="neither",
    )


def _parse(argv: Sequence[str] | None) -> tuple[TrainingRunOptions, tuple[str, ...]]:
    """The program's options, and the trainer's flags, which follow `--`."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    parser = OneLineParser(
        module="cloud.train",
        usage="%(prog)s --data_dir gs://BUCKET --job_dir gs://BUCKET/PATH [flags] [-- flags of trainer.task …]",
        description="Starts a job of Vertex AI that trains on PATH/preproc/train* and writes to PATH/JOB_ID.",
    )
    add_flags(parser, options_of(TrainingRunOptions))
    try:
        args = parser.parse_args(words[:split])
    except InputError as error:
        if "unrecognized" not in str(error):
            raise
        raise InputError(f"{error} Flags of the trainer stand after '--'.") from error
    options = TrainingRunOptions(**given_values(args, TrainingRunOptions))
    return options, tuple(words[split + 1 :])


def _find_records(options: TrainingRunOptions, gcloud: Gcloud, storage: Storage) -> tuple[Manifest, bool]:
    """The manifest of the training set, and whether there is a test set.

    Raises:
      InputError: the training or the evaluation set is not finished, or the sets do not fit together.
    """
    sets = {}
    for split in SPLITS:
        prefix = f"{options.job_dir}/preproc/{split}"
        path = sidecar_path(prefix, MANIFEST_NAME)
        content = read_file(path, storage)
        if content is not None:
            sets[split] = RecordSet(prefix=prefix, manifest=Manifest.from_bytes(content, where=path))
        elif split != "test":
            manifests = storage.match(f"{options.job_dir}/*/preproc/_{split}/{MANIFEST_NAME}")
            if manifests:
                folder = manifests[0].removesuffix(f"/preproc/_{split}/{MANIFEST_NAME}")
                raise InputError(
                    f"{options.job_dir}: has the records of several networks, each in a folder. Train on one of them, "
                    f"for example: {_command(options, 'hugs_train.sh', options.data_dir, folder)}"
                )
            raise InputError(
                f"{path}: not there, so the records are not finished: the Dataflow job still runs, failed, or was "
                f"never started. Look: gcloud dataflow jobs list --project {gcloud.project} --region {gcloud.region}. "
                "Start it, or go on where it was stopped: "
                + _command(options, "hugs_preproc.sh", options.data_dir, "--job_dir", options.job_dir)
            )
    require_agreement(list(sets.values()))
    return sets["train"].manifest, "test" in sets


def _require_replaceable(model_dir: str, storage: Storage) -> None:
    """Refuses an output that the trainer would refuse later, on its machines.

    Raises:
      InputError: the folder holds something that is not a model of this project.
    """
    if is_there(f"{model_dir}/**", storage) and not is_there(f"{model_dir}/{MODEL_INFO_PATH}", storage):
        raise InputError(
            f"JOB_ID: {model_dir} is there already and is not a model of an earlier run, so it is not replaced. Choose "
            "another JOB_ID."
        )


def _command(options: TrainingRunOptions, *words: str) -> str:
    """A command of this project, with the same recipe, project and region as this run."""
    variables = {} if options.recipe == "hugs" else {"RECIPE": options.recipe}
    return script_command(*words, *flags_of({"project": options.project, "region": options.region}), **variables)


def _require_free(wanted: TrainingJob, gcloud: Gcloud) -> None:
    """Refuses a job while another active job writes to the same folder."""
    name, output_path = wanted.display_name, wanted.output_path
    for job in gcloud.listed(gcloud.command("ai", "custom-jobs", "list", filter=f'displayName="{name}"')):
        if job.get("displayName") == name and job.get("state") not in _ENDED:
            number = _number(job)
            raise InputError(
                f"job name taken: job {number} ({_state(job)}) already writes to {output_path}. Watch it: "
                f"{shlex.join(gcloud.command('ai', 'custom-jobs', 'stream-logs', number))}. Cancel it with "
                "'cancel' in place of 'stream-logs', or choose another JOB_ID."
            )


def _number(job: dict[str, Any]) -> str:
    return str(job.get("name", "")).rpartition("/")[2]


def _state(job: dict[str, Any]) -> str:
    return str(job.get("state", "JOB_STATE_PENDING")).removeprefix("JOB_STATE_").lower()


def _to_yaml(spec: dict[str, Any]) -> str:
    import yaml  # here, so that --help stays quick

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # The pools share their arguments; repeating them is easier to read than a YAML anchor.

    return yaml.dump(spec, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _create(job: TrainingJob, spec: dict[str, Any], recipe: Recipe, gcloud: Gcloud) -> str:
    """Posts the job; returns its number."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, _CONFIG_NAME)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(_to_yaml(spec))
        return _number(gcloud.resource(_create_command(job, path, recipe, gcloud)))


def _create_command(job: TrainingJob, config_path: str, recipe: Recipe, gcloud: Gcloud) -> list[str]:
    return gcloud.command(
        "ai",
        "custom-jobs",
        "create",
        display_name=job.display_name,
        config=config_path,
        labels=recipe.cloud.labels,
    )


def _wait(number: str, gcloud: Gcloud) -> int:
    """Polls a job until it ends, and prints each new state.

    Raises:
      InputError: gcloud failed to give the state of the job several times in a row.
    """
    seen, failures = "", 0
    while True:
        try:
            job = gcloud.resource(gcloud.command("ai", "custom-jobs", "describe", number))
            failures = 0
        except InputError as error:
            failures += 1
            if failures == _POLL_FAILURES:
                raise InputError(f"{error} The job itself continues.") from error
            job = {}
        state = job.get("state", "")
        if state and state != seen:
            print(f"{time.strftime('%H:%M:%S')} job {number}: {_state(job)}", flush=True)
            seen = state
        if state in _ENDED:
            break
        time.sleep(_POLL_SEC)
    if state == _SUCCEEDED:
        return EXIT_OK
    cause = " ".join(str((job.get("error") or {}).get("message", "")).split())
    print(f"training {_state(job)}" + (f": {cause}" if cause else ""), file=sys.stderr)
    return EXIT_JOB_FAILED


def _report(number: str, job: TrainingJob, options: TrainingRunOptions, gcloud: Gcloud) -> None:
    print(f"job {number} was started in {gcloud.region}; the machines need some minutes to start")
    print(f"watch    {shlex.join(gcloud.command('ai', 'custom-jobs', 'stream-logs', number))}")
    print(f"         https://console.cloud.google.com/agent-platform/training/custom-jobs?project={gcloud.project}")
    print(f"cancel   {shlex.join(gcloud.command('ai', 'custom-jobs', 'cancel', number))}")
    print(f"model    {job.output_path}/model\nreport   {job.output_path}/report.html")
    print(f"\nnext, when it has succeeded: {_command(options, 'hugs_deploy.sh', job.output_path)}", flush=True)


def _place_of(package: TrainerPackage, job: TrainingJob) -> StagedPackage:
    folder = f"{job.output_path}/package"
    return StagedPackage(uri=f"{folder}/{package.name}", lock_uri=f"{folder}/{package.lock_name}")


def main(argv: Sequence[str] | None = None, *, run: Runner = run_command) -> int:
    """Runs the program with the arguments; `run` is called to run gcloud.

    Returns:
      0 if the job was started, or with --wait if it succeeded; 1 if it did not.

    Raises:
      InputError: the user's input is wrong, or Google's services refuse it. No job was started.
    """
    options, flags = _parse(argv)
    recipe = load_recipe(options.recipe)
    options = dataclasses.replace(
        options,
        data_dir=require_folder(options.data_dir, field="--data_dir", within_bucket=False),
        job_dir=require_folder(options.job_dir, field="--job_dir"),
    )
    gcloud = options.gcloud(recipe, run)
    with doing("packing the trainer"):
        package = None if recipe.vertex.trainer_in_image else build_package()
    job = TrainingJob(job_dir=options.job_dir, job_id=options.job_id, has_test=False, flags=flags)
    staged = _place_of(package, job) if package else None
    image = recipe.vertex.image or hub_image(PYTHON_IMAGE, project=gcloud.project, region=gcloud.region)
    custom_job_spec(job, recipe, image=image, package=staged)  # Checks the flags before any request.
    if not options.dry_run:
        gcloud.require_new_enough()

    storage = job_storage()
    with doing(f"looking for the records in {options.job_dir}"):
        manifest, has_test = _find_records(options, gcloud, storage)
        require_weights(manifest.backbone.weights, job, recipe)
        _require_replaceable(f"{job.output_path}/model", storage)
    job = TrainingJob(job_dir=options.job_dir, job_id=options.job_id, has_test=has_test, flags=flags)
    spec = custom_job_spec(job, recipe, image=image, package=staged)
    if options.dry_run:
        print(f"# {_CONFIG_NAME}\n{_to_yaml(spec)}\n{shlex.join(_create_command(job, _CONFIG_NAME, recipe, gcloud))}")
        sent = f"package {staged.uri} ({len(package.content)} bytes) and the job" if package and staged else "job"
        print(f"\ndry run: the {sent} would be sent; nothing was sent")
        require_printed()
        return EXIT_OK
    if recipe.vertex.image is None:
        require_repository(image, gcloud, field="vertex.image")
    _require_free(job, gcloud)
    if package and staged:
        with doing("copying the trainer to the bucket"):
            put_file(package.content, staged.uri, storage)
            put_file(package.lock, staged.lock_uri, storage)
    number = _create(job, spec, recipe, gcloud)
    _report(number, job, options, gcloud)
    if not options.wait:
        return EXIT_OK
    try:
        with doing(f"waiting for job {number}"):
            return _wait(number, gcloud)
    except KeyboardInterrupt:
        watch = shlex.join(gcloud.command("ai", "custom-jobs", "stream-logs", number))
        raise KeyboardInterrupt(f"Job {number} goes on. To watch it: {watch}") from None


if __name__ == "__main__":
    run_program(main)
