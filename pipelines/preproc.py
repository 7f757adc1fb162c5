"""Embeds every list of a recipe: training, evaluation and, where there is one, test.

`python -m pipelines.preproc --recipe hugs --data_dir data/` runs `pipelines.embed` on one list after the
other, in this process, into `JOB_DIR/preproc/{train,eval,test}`. All lists are looked for before the first is
embedded, and images that are in the training set as well are counted. The same command again goes on with the job
directory that an earlier run left unfinished. Flags that this program does not know go to `pipelines.embed`, and
from there to Beam.

With `--data_dir gs://bucket` every list becomes a job on Dataflow, on the machines that the recipe names. The jobs
are handed over all at once, after all of them have been checked, and go on by themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from configs.arguments import OneLineParser
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError, run_program
from configs.recipe import Recipe, load_recipe
from pipelines import plan
from pipelines.dataflow import RUNNER, GivenFlags, uses_dataflow
from preprocess.job import DEFINITION_NAME
from preprocess.record_set import MANIFEST_NAME, sidecar_path
from preprocess.rows import has_scheme
from preprocess.storage import LocalStorage, Storage

if TYPE_CHECKING:
    from pipelines.prepared_job import PreparedJob
    from pipelines.submission import RemoteRun

_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Set for each list by this program.
_OWN_EMBED_FLAGS = ("--input_path", "--input_dict", "--output_path")
# Made from the output, so that no two lists have the same.
_MADE_BY_EMBED = ("--job_name",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedJob:
    """One list to embed.

    Attributes:
      split: "train", "eval" or "test".
      input_path: the list, or a glob of lists.
      input_dict: its dict.txt.
      output_path: prefix of the record set.
    """

    split: str
    input_path: str
    input_dict: str
    output_path: str

    def flags(self) -> list[str]:
        """The job as flags of `pipelines.embed`."""
        paths = (self.input_path, self.input_dict, self.output_path)
        return [word for pair in zip(_OWN_EMBED_FLAGS, paths, strict=True) for word in pair]


def _parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = OneLineParser(
        prog="python -m pipelines.preproc",
        usage="%(prog)s --data_dir DIR [--recipe RECIPE] [--job_dir DIR] [--wait] [--dry_run] "
        "[flags of pipelines.embed …]",
        description="Embeds the training, evaluation and test lists of a recipe: those in a directory one after the "
        "other, those in a bucket all at once on Dataflow (--runner DirectRunner: here).",
        epilog="Every other flag is passed on to pipelines.embed, for example --weights random --seed 1; "
        "`python -m pipelines.embed --help` lists them.",
    )
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="directory or bucket that has the lists")
    parser.add_argument(
        "--recipe", default="hugs", help="name of a recipe, or path of its YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--job_dir",
        metavar="DIR",
        help="where the records go (default: the newest DATA_DIR/RECIPE_DATE_TIME if it is unfinished, else a new one)",
    )
    parser.add_argument("--wait", action="store_true", help="for the jobs on Dataflow, and say what came of them")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check what can be checked without writing, print the commands of pipelines.embed, start nothing",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="embed nothing, but say what it will take, from a sample; --sample N, --prices FILE and --output FILE are "
        "flags of it, and flags of Beam are not: `python -m pipelines.plan --help`",
    )
    args, embed_flags = parser.parse_known_args(argv)
    for flag in embed_flags:
        name = flag.split("=")[0]
        if name in (*_OWN_EMBED_FLAGS, *_MADE_BY_EMBED):
            raise InputError(
                f"{name} is set by this program for each list. Name the lists in the recipe, or run "
                "pipelines.embed on one."
            )
    return args, embed_flags


def plan_jobs(recipe: Recipe, *, data_dir: str, job_dir: str, storage: Storage) -> list[EmbedJob]:
    """The lists of a recipe that are there, as jobs; the test list may be missing, no other.

    Raises:
      InputError: the dictionary, the training list or the evaluation list is missing.
    """
    lists = {"train": recipe.lists.train, "eval": recipe.lists.eval, "test": recipe.lists.test}
    input_dict = _in_folder(data_dir, recipe.lists.dict)
    required = {
        "dict": input_dict,
        "train": _in_folder(data_dir, recipe.lists.train),
        "eval": _in_folder(data_dir, recipe.lists.eval),
    }
    missing = [f"{path} (lists.{field})" for field, path in required.items() if not _exists(path, storage)]
    if missing:
        raise InputError(
            f"recipe {recipe.name}: {', '.join(missing)} not found. To make the lists from a folder of class "
            f"folders: python -m pipelines.ingest --image_dir PHOTOS --output_dir {shlex.quote(data_dir)}"
        )
    return [
        EmbedJob(
            split=split,
            input_path=_in_folder(data_dir, path),
            input_dict=input_dict,
            output_path=_in_folder(job_dir, f"preproc/{split}"),
        )
        for split, path in lists.items()
        if path is not None and (split in required or _exists(_in_folder(data_dir, path), storage))
    ]


def unfinished_job_dir(recipe: Recipe, splits: Iterable[str], *, data_dir: str, storage: Storage) -> str | None:
    """The newest job directory of a recipe, if a run was stopped in it; None if it is finished, or there is none.

    Args:
      recipe: its name begins the names of the directories.
      splits: those that a finished job has.
      data_dir: where the directories lie.
      storage: of `data_dir`.
    """
    folders: dict[str, set[str]] = {}
    for name in (MANIFEST_NAME, f"parts-*/{DEFINITION_NAME}"):
        for path in storage.match(_in_folder(data_dir, f"{recipe.name}_*/preproc/_*/{name}")):
            job_dir, _, rest = path.rpartition("/preproc/_")
            folders.setdefault(job_dir, set()).add(rest)
    if not folders:
        return None
    newest = max(folders)
    found = folders[newest]
    finished = all(f"{split}/{MANIFEST_NAME}" in found for split in splits)
    return newest if not finished or any(rest.endswith(DEFINITION_NAME) for rest in found) else None


def _against(job: EmbedJob, jobs: Sequence[EmbedJob], storage: Storage) -> list[str]:
    """Flags that compare a set with the training set, if that is finished by now."""
    training = jobs[0].output_path
    if job.output_path == training or not _exists(sidecar_path(training, MANIFEST_NAME), storage):
        return []
    return ["--against", training]


def _prediction(data_dir: str, recipe: Recipe, embed_flags: Sequence[str], storage: Storage) -> list[str]:
    """Flags that compare a run with the recipe's plan, if one lies where `pipelines.plan` puts it."""
    path = plan.plan_path(data_dir, recipe.name)
    if GivenFlags(embed_flags).value("--prediction") is not None or not _exists(path, storage):
        return []
    return ["--prediction", path]


def _in_folder(folder: str, path: str) -> str:
    return path if has_scheme(path) else os.path.join(folder, path)


def _exists(path: str, storage: Storage) -> bool:
    try:
        return bool(storage.match(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be looked for ({error}).") from error


def _storage_for(uri: str, beam_flags: Sequence[str]) -> Storage:
    """The storage of the data, opened with the credentials that Beam's flags name."""
    if not has_scheme(uri):
        return LocalStorage()
    from apache_beam.io.filesystems import FileSystems  # here: Beam takes seconds to import
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.dataflow_service import check_credentials
    from pipelines.preflight import check_reachable
    from preprocess.beam_storage import BeamStorage

    options = PipelineOptions(list(beam_flags))
    if uses_dataflow(beam_flags):
        check_credentials(options)
    check_reachable([uri])
    FileSystems.set_options(options)
    return BeamStorage()


def _run_embed(argv: Sequence[str]) -> int:
    from pipelines import embed  # here: it imports Beam

    return embed.main(argv) or EXIT_OK


def _prepare_embed(argv: Sequence[str]) -> PreparedJob:
    from pipelines import embed  # here: it imports Beam

    return embed.prepare(argv)


def _train_command(args: argparse.Namespace, recipe: Recipe, job_dir: str) -> str:
    """The command that trains on what was embedded, as it can be typed where this program was started."""
    script = os.path.join(_REPOSITORY, "hugs_train.sh")
    if os.path.realpath(os.getcwd()) == os.path.realpath(_REPOSITORY):
        script = "./hugs_train.sh"
    choice = "" if args.recipe == "hugs" else f"RECIPE={shlex.quote(args.recipe)} "
    return choice + shlex.join([script, args.data_dir, job_dir])


def _embed_here(
    jobs: Sequence[EmbedJob], flags: Sequence[str], storage: Storage, embed: Callable[[Sequence[str]], int]
) -> int:
    """Embeds one list after the other, up to the first that fails; gives its exit code."""
    for position, job in enumerate(jobs, start=1):
        print(f"\n{job.split} ({position} of {len(jobs)}): {job.input_path} -> {job.output_path}", flush=True)
        code = embed([*job.flags(), *_against(job, jobs, storage), *flags])
        if code != EXIT_OK:
            skipped = ", ".join(later.split for later in jobs[position:])
            print(f"{job.split} failed" + (f"; not started: {skipped}" if skipped else ""), file=sys.stderr)
            return code
    return EXIT_OK


def _embed_on_dataflow(
    jobs: Sequence[EmbedJob],
    flags: Sequence[str],
    storage: Storage,
    prepare: Callable[[Sequence[str]], PreparedJob],
    *,
    wait: bool,
) -> int:
    """Hands over all lists, once all are known to be right; gives the worst exit code."""
    against = {job.split: _against(job, jobs, storage) for job in jobs}
    prepared = [(job, prepare([*job.flags(), *against[job.split], *flags])) for job in jobs]
    runs: list[tuple[EmbedJob, RemoteRun]] = []
    codes = [EXIT_OK]
    for job, ready in prepared:
        print(f"\n{job.split}: {job.input_path} -> {job.output_path}", flush=True)
        started = ready.start()
        if isinstance(started, int):
            codes.append(started)
        else:
            runs.append((job, started))
    if runs:
        print(f"\nall active jobs: {runs[0][1].list_command}")
    left_out = [job.split for job, _ in runs if job is not jobs[0] and not against[job.split]]
    if left_out:
        print(
            f"not compared with the training set, which is not finished yet (--against): {', '.join(left_out)}",
            flush=True,
        )
    for job, run in runs if wait else ():
        print(f"\n{job.split}: waiting for {run.job_id}", flush=True)
        try:
            codes.append(run.wait())
        except InputError as error:  # The others are still to be heard of.
            print(f"error: {error}", file=sys.stderr)
            codes.append(EXIT_INPUT_ERROR)
    if runs and not wait:
        print("\nonce all of them are done (--wait waits for that, and says what came of them),")
    return max(codes)


def main(
    argv: Sequence[str] | None = None,
    *,
    embed: Callable[[Sequence[str]], int] = _run_embed,
    prepare: Callable[[Sequence[str]], PreparedJob] = _prepare_embed,
) -> int:
    """Runs the program; `embed` and `prepare` replace those of the embedding program, and get the flags of one list.

    Raises:
      InputError: the recipe, a flag or a list is wrong. Lists embedded before it stay.
    """
    args, embed_flags = _parse_args(argv)
    recipe = load_recipe(args.recipe)
    args.data_dir = args.data_dir.removeprefix("file://")
    args.data_dir = args.data_dir.rstrip("/") or args.data_dir[:1]  # "/" stays "/"
    if not has_scheme(args.data_dir) and not os.path.isdir(args.data_dir):
        raise InputError(f"--data_dir: there is no directory {args.data_dir!r}. Give the one that has the lists.")
    if args.plan:
        return plan.main(["--recipe", args.recipe, "--data_dir", args.data_dir, *embed_flags])
    if args.data_dir.startswith("gs://") and GivenFlags(embed_flags).value("--runner") is None:
        embed_flags = [f"--runner={RUNNER}", *embed_flags]
    on_dataflow = uses_dataflow(embed_flags)
    storage = _storage_for(args.data_dir, embed_flags)
    job_dir = args.job_dir
    if job_dir is None:
        planned = plan_jobs(recipe, data_dir=args.data_dir, job_dir="", storage=storage)
        splits = [job.split for job in planned]
        job_dir = unfinished_job_dir(recipe, splits, data_dir=args.data_dir, storage=storage)
        if job_dir is None:
            job_dir = _in_folder(args.data_dir, f"{recipe.name}_{datetime.datetime.now():%Y%m%d_%H%M%S}")
        else:
            print(f"going on in {job_dir}, where a run was stopped; --job_dir names another")
    if any(character in job_dir for character in ",*?["):
        # Found out now, and not when hours of embedding are done.
        raise InputError(
            f"--job_dir: must not hold any of , * ? [ since training takes lists of patterns. Received: {job_dir!r}."
        )
    jobs = plan_jobs(recipe, data_dir=args.data_dir, job_dir=job_dir, storage=storage)
    flags = ["--recipe", args.recipe, *_prediction(args.data_dir, recipe, embed_flags, storage), *embed_flags]
    if args.dry_run:
        code = _embed_here(jobs, ["--dry_run", *flags], storage, embed)
    elif on_dataflow:
        code = _embed_on_dataflow(jobs, flags, storage, prepare, wait=args.wait)
    else:
        code = _embed_here(jobs, flags, storage, embed)
    if code == EXIT_OK:
        print(f"\nnext: {_train_command(args, recipe, job_dir)}")
    return code


if __name__ == "__main__":
    run_program(main)
