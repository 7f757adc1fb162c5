"""Embeds every list of a recipe: training, evaluation and, where there is one, test.

`python -m pipelines.preproc --recipe hugs --data_dir data/` runs `pipelines.embed` on one list after the
other, in this process, into `JOB_DIR/preproc/{train,eval,test}`. All lists are looked for before the first is
embedded, and images that are in the training set as well are counted. The same command again goes on with the job
directory that an earlier run left unfinished. Several views of an image (`--views`) are made for the training list
only; the images of the other lists are embedded as they are. Several backbones (`--backbone a,b`) get a folder each,
`JOB_DIR/BACKBONE/preproc/{train,eval,test}`. Flags that this program does not know go to `pipelines.embed`, and from
there to Beam.

With `--data_dir gs://bucket` every list becomes a job on Dataflow, on the machines that the recipe names. The jobs
are handed over all at once, after all of them have been checked, and go on by themselves.
"""

from __future__ import annotations

import dataclasses
import glob
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from configs.arguments import OneLineParser
from configs.bucket_folder import require_folder
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.option import add_flags, given_values, option, options_of
from configs.printed_commands import program_command, script_command
from configs.program import run_program
from configs.recipe import Recipe, load_recipe
from configs.rules import PathText, Switch
from configs.several_backbones import folder_names, path_for, split_backbones
from configs.view_options import flags_of_held_out
from pipelines import plan
from pipelines.recipe_lists import (
    LIST_FLAGS,
    RecipeList,
    RecipeListOptions,
    check_data_dir,
    exists,
    find_lists,
    folder_of_each,
    new_job_dir,
    newest_job_dir,
    plan_path,
)
from pipelines.runners.dataflow import RUNNER, GivenFlags, uses_dataflow
from preprocess.records.record_set import MANIFEST_NAME, sidecar_path
from preprocess.storage.base import LocalStorage, Storage
from preprocess.storage.uris import has_scheme

if TYPE_CHECKING:
    from pipelines.embedding.prepared_job import PreparedJob
    from pipelines.embedding.submission import RemoteRun

# Flags whose values are made from the output, so that they differ between lists.
_MADE_BY_EMBED = ("--job_name",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocOptions(RecipeListOptions):
    """The options of the program; all other flags are those of `pipelines.embed`."""

    job_dir: str | None = option(
        None,
        PathText(),
        help="where the records go",
        decides="neither",
        metavar="DIR",
        default_words="the newest DATA_DIR/RECIPE_DATE_TIME (in a bucket, RECIPE_USER_DATE_TIME) if it is unfinished, "
        "else a new one",
    )
    wait: bool = option(
        False,
        Switch(can_be_unset=False),
        help="wait for the jobs on Dataflow, and say how they ended",
        decides="neither",
    )
    dry_run: bool = option(
        False,
        Switch(can_be_unset=False),
        help="check what can be checked without writing, print the commands of hugs embed, start nothing",
        decides="neither",
    )
    plan: bool = option(
        False,
        Switch(can_be_unset=False),
        help="embed nothing, but say what it will take, from a sample; --sample N, --prices FILE and --output FILE are "
        "flags of `hugs plan`, and flags of Beam are not",
        decides="neither",
    )


def _parse(argv: Sequence[str] | None) -> tuple[PreprocOptions, list[str]]:
    """The options of this program, and the flags of `pipelines.embed`."""
    parser = OneLineParser(
        module="pipelines.preproc",
        usage="%(prog)s --data_dir DIR [--recipe RECIPE] [--job_dir DIR] [--wait] [--dry_run] [--plan] "
        "[flags of hugs embed …]",
        description="Embeds the training, evaluation and test lists of a recipe: those in a directory one after the "
        "other, those in a bucket all at once on Dataflow (--runner DirectRunner: here).",
        epilog="Every other flag is passed on to hugs embed, for example --weights random --seed 1; "
        f"`{program_command('embed', '--help')}` lists them.",
    )
    add_flags(parser, options_of(PreprocOptions))
    args, embed_flags = parser.parse_known_args(argv)
    options = PreprocOptions(**given_values(args, PreprocOptions))
    for flag in embed_flags:
        name = flag.split("=")[0]
        if name in (*LIST_FLAGS, *_MADE_BY_EMBED):
            raise InputError(
                f"{name} is set by this program for each list. Name the lists in the recipe, or run "
                "pipelines.embed on one."
            )
    return options, embed_flags


def _backbones(recipe: Recipe, embed_flags: Sequence[str]) -> tuple[str, ...]:
    """The names of the folders of the backbones that a command line or else the recipe names.

    Raises:
      InputError: as for `--backbone` of `pipelines.embed`.
    """
    return folder_names(split_backbones(GivenFlags(embed_flags).value("--backbone") or recipe.preprocess.backbone))


def _against(entry: RecipeList, lists: Sequence[RecipeList], storage: Storage, backbones: Sequence[str]) -> list[str]:
    """Flags that compare a set with the training set, if that is finished already; of several backbones each set."""
    training = lists[0].output_path
    manifests = [sidecar_path(path_for(training, name), MANIFEST_NAME) for name in backbones]
    if entry.output_path == training or not all(exists(glob.escape(path), storage) for path in manifests):
        return []
    return ["--against", training]


def _prediction(data_dir: str, recipe: Recipe, embed_flags: Sequence[str], storage: Storage) -> list[str]:
    """Flags that compare a run with the recipe's plan, if there is one at its default path."""
    path = plan_path(data_dir, recipe.name)
    if GivenFlags(embed_flags).value("--prediction") is not None or not exists(path, storage):
        return []
    return ["--prediction", path]


def _storage_for(uri: str, beam_flags: Sequence[str]) -> Storage:
    """The storage of the data, opened with the credentials that Beam's flags name."""
    if not has_scheme(uri):
        return LocalStorage()
    from apache_beam.io.filesystems import FileSystems  # here: Beam takes seconds to import
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.checks.preflight import check_reachable
    from pipelines.runners.dataflow_service import check_credentials
    from preprocess.beam.beam_storage import BeamStorage

    options = PipelineOptions(list(beam_flags))
    # First: without a network, the login is not what is missing.
    check_reachable([uri])
    if uses_dataflow(beam_flags):
        check_credentials(options)
    FileSystems.set_options(options)
    return BeamStorage()


def _run_embed(argv: Sequence[str]) -> int:
    from pipelines import embed  # here: it imports Beam

    return embed.run(argv)


def _prepare_embed(argv: Sequence[str]) -> PreparedJob:
    from pipelines import embed  # here: it imports Beam

    return embed.prepare(argv)


def _train_command(recipe: str, data_dir: str, job_dir: str, *, splits: Collection[str]) -> str:
    """The command that trains on the embedded sets, as it can be typed in the current folder."""
    if has_scheme(job_dir) and not job_dir.startswith("gs://"):
        # The script trains on local files here, or on gs:// in the cloud.
        flags = [f"--{split}_data_paths={job_dir.rstrip('/')}/preproc/{split}" for split in splits]
        output = f"--output_path={job_dir.rstrip('/')}/training"
        return program_command("train", f"--recipe={recipe}", *flags, output)
    return script_command("hugs_train.sh", data_dir, job_dir, **({} if recipe == "hugs" else {"RECIPE": recipe}))


def _choose_job_dir(data_dir: str, recipe: Recipe, storage: Storage, backbones: Sequence[str]) -> str:
    """The default directory for the records: that of a run that was stopped, or a new one."""
    planned = find_lists(recipe, data_dir=data_dir, job_dir="", storage=storage)
    splits = [entry.split for entry in planned]
    found = newest_job_dir(recipe, splits, data_dir=data_dir, storage=storage, backbones=backbones)
    if found is not None and not found[1]:
        print(f"going on in {found[0]}, where a run was stopped; --job_dir names another")
        return found[0]
    new = new_job_dir(recipe, found[0] if found is not None else None, data_dir=data_dir)
    if found is not None:
        print(f"{found[0]} is finished; all lists are embedded anew into {new}")
    return new


def _flags_for(entry: RecipeList, flags: Sequence[str], recipe: Recipe) -> Sequence[str]:
    """The flags for a list. Several views of an image are for training: other lists get the image as it is."""
    return flags if entry.split == "train" else flags_of_held_out(flags, recipe.preprocess)


def _embed_here(
    lists: Sequence[RecipeList],
    flags: Sequence[str],
    storage: Storage,
    recipe: Recipe,
    backbones: Sequence[str],
    embed: Callable[[Sequence[str]], int],
) -> int:
    """Embeds one list after the other, up to the first that fails; gives its exit code."""
    for position, entry in enumerate(lists, start=1):
        where = f"{entry.input_path} -> {entry.output_path}"
        print(f"\n{entry.split} ({position} of {len(lists)}): {where}", flush=True)
        code = embed([*entry.flags(), *_against(entry, lists, storage, backbones), *_flags_for(entry, flags, recipe)])
        if code != EXIT_OK:
            skipped = ", ".join(later.split for later in lists[position:])
            print(f"{entry.split} failed" + (f"; not started: {skipped}" if skipped else ""), file=sys.stderr)
            return code
    return EXIT_OK


def _hand_over(
    lists: Sequence[RecipeList],
    flags: Sequence[str],
    storage: Storage,
    recipe: Recipe,
    backbones: Sequence[str],
    prepare: Callable[[Sequence[str]], PreparedJob],
) -> tuple[int, dict[str, RemoteRun]]:
    """Submits the jobs of all lists to Dataflow, after all lists were checked.

    Returns:
      The worst exit code of those for which nothing was left to do there; the others' runs, by split.
    """
    against = {entry.split: _against(entry, lists, storage, backbones) for entry in lists}
    prepared = [
        (entry, prepare([*entry.flags(), *against[entry.split], *_flags_for(entry, flags, recipe)])) for entry in lists
    ]
    runs: dict[str, RemoteRun] = {}
    worst = EXIT_OK
    for entry, job in prepared:
        print(f"\n{entry.split}: {entry.input_path} -> {entry.output_path}", flush=True)
        started = job.start()
        if isinstance(started, int):
            worst = max(worst, started)
        else:
            runs[entry.split] = started
    if runs:
        print(f"\nall active jobs: {next(iter(runs.values())).list_command}")
    left_out = [entry.split for entry in lists[1:] if entry.split in runs and not against[entry.split]]
    if left_out:
        print(f"not compared with the training set, which is not finished yet (--against): {', '.join(left_out)}")
    sys.stdout.flush()
    return worst, runs


def _wait_for(runs: Mapping[str, RemoteRun]) -> int:
    """Waits for jobs one after the other, also when one fails; gives the worst exit code."""
    worst = EXIT_OK
    for split, run in runs.items():
        print(f"\n{split}: waiting for {run.job_id}", flush=True)
        try:
            code = run.wait()
        except InputError as error:  # It still waits for the other jobs.
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_INPUT_ERROR
        worst = max(worst, code)
    return worst


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
    options, embed_flags = _parse(argv)
    recipe = load_recipe(options.recipe)
    data_dir = check_data_dir(options.data_dir)
    if options.plan:
        return plan.main(["--recipe", options.recipe, "--data_dir", data_dir, *embed_flags])
    if data_dir.startswith("gs://") and GivenFlags(embed_flags).value("--runner") is None:
        embed_flags = [f"--runner={RUNNER}", *embed_flags]
    backbones = _backbones(recipe, embed_flags)
    storage = _storage_for(data_dir, embed_flags)
    job_dir = options.job_dir
    if job_dir is None:
        job_dir = _choose_job_dir(data_dir, recipe, storage, backbones)
    # Input that training would refuse is refused now, and not after hours of embedding.
    if job_dir.startswith("gs://"):
        job_dir = require_folder(job_dir, field="--job_dir")
    lists = find_lists(recipe, data_dir=data_dir, job_dir=job_dir, storage=storage, backbones=backbones)
    flags = ["--recipe", options.recipe, *_prediction(data_dir, recipe, embed_flags, storage), *embed_flags]
    runs: dict[str, RemoteRun] = {}
    if options.dry_run:
        code = _embed_here(lists, ["--dry_run", *flags], storage, recipe, backbones, embed)
    elif uses_dataflow(embed_flags):
        code, runs = _hand_over(lists, flags, storage, recipe, backbones, prepare)
        if options.wait:
            code = max(code, _wait_for(runs))
    else:
        code = _embed_here(lists, flags, storage, recipe, backbones, embed)
    if code == EXIT_OK and options.dry_run:
        print("\ndry run: this would be run, unless it is done already; nothing was")
        require_printed()
    elif code == EXIT_OK:
        splits = [entry.split for entry in lists]
        folders = folder_of_each(job_dir, backbones).values()
        commands = [_train_command(options.recipe, data_dir, folder, splits=splits) for folder in folders]
        print()
        if runs and not options.wait:
            print("next, once all of them are done (--wait waits for that, and says how they ended):")
        for command in commands:
            print(f"  {command}" if runs and not options.wait else f"next: {command}")
    return code


if __name__ == "__main__":
    run_program(main)
