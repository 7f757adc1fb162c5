"""The flags of `pipelines.embed`; a flag on the command line overrides the recipe."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from configs.arguments import OneLineParser
from configs.errors import InputError
from configs.file_uris import path_argument
from configs.option import REQUIRED, Options, add_flags, option, options_of
from configs.recipe import OptionalRecipe, PreprocessOptions, Recipe, load_recipe
from configs.rules import PathText, PathTexts, Switch, Text, Whole
from configs.several_backbones import options_of_each, path_for, path_of_each
from configs.view_options import VIEW_OPTIONS, override


@dataclasses.dataclass(frozen=True)
class _Reasons(Text):
    """Reasons of failures. The flag without a value stands for all reasons."""

    flag: ClassVar[dict[str, Any]] = {"nargs": "?", "const": "all"}


_PATH = PathText()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathOptions(Options):
    """The options about the input and the output of a job."""

    prefix: ClassVar[str] = "--"

    input_path: tuple[str, ...] = option(
        REQUIRED,
        PathTexts(),
        help="CSV list of rows image_uri,label[,label...], or a glob of lists; may be repeated. Relative image URIs "
        "are relative to the list that names them",
        decides="records",
        held_as=("input_path",),
        metavar="LIST",
    )
    input_dict: str = option(
        REQUIRED,
        _PATH,
        help="dict.txt: the labels, one a line",
        decides="records",
        held_as=("input_dict",),
        metavar="FILE",
    )
    output_path: str = option(
        REQUIRED,
        _PATH,
        help="the set to write, for example out/preproc/train. Several backbones write one each, and {backbone} stands "
        "for the name: out/preproc/train means out/preproc/{backbone}/train then",
        decides="neither",
        metavar="PREFIX",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """The option about batches, which jobs and plans share."""

    prefix: ClassVar[str] = "--"

    batch_size: int | None = option(
        None,
        Whole(1),
        help="images a batch",
        decides="neither",
        decides_time=True,
        metavar="N",
        default_words="what suits the engine",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobOptions(BatchOptions, PreprocessOptions, PathOptions):
    """All options of a job: its input and output, the options of a recipe about records, and the others.

    Raises:
      InputError: a value breaks its rule; the message names the flag and the value.
    """

    prefix: ClassVar[str] = "--"

    embedding_cache: str | None = option(
        None,
        _PATH,
        help="local or remote folder that keeps embeddings by the content of the image file. Embeddings in it are not "
        "computed again, even if lists or files have other names. All new embeddings are added to it",
        decides="neither",
        metavar="FOLDER",
    )
    against: tuple[str, ...] = option(
        (),
        PathTexts(),
        help="a finished set, for example that of the training list: the report counts the images that are in both; "
        "may be repeated",
        decides="neither",
        metavar="PREFIX",
    )
    retry_failures: str | None = option(
        None,
        _Reasons(anything=True),
        help="try the failed rows of a finished set again, all or those of some reasons, and complete the set",
        decides="neither",
        metavar="REASON[,REASON]",
    )
    overwrite: bool = option(
        False,
        Switch(can_be_unset=False),
        help="replace the set at --output_path, as soon as the new set is ready",
        decides="neither",
    )
    verify: bool = option(
        False,
        Switch(can_be_unset=False),
        help="read every file of a finished set and compare its digest. Lost parts are embedded again; with --dry_run "
        "they are only named",
        decides="neither",
    )
    prediction: str | None = option(
        None,
        _PATH,
        help="a plan that `hugs plan` made of these lists: the report compares it with the run",
        decides="neither",
        metavar="FILE",
    )
    wait: bool = option(
        False,
        Switch(can_be_unset=False),
        help="wait for a job on Dataflow, and end like a run on this machine; other runners are waited for anyway",
        decides="neither",
    )
    dry_run: bool = option(
        False,
        Switch(can_be_unset=False),
        help="check everything that can be checked without writing, print the command with all of Beam's flags, start "
        "nothing",
        decides="neither",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry_failures is not None and self.overwrite:
            raise InputError(
                "retry_failures: completes the set that is there, which --overwrite would replace. Pass one."
            )
        if self.verify and self.overwrite:
            raise InputError("verify: looks at the set that is there, which --overwrite would replace. Pass one.")

    @property
    def embedding_caches(self) -> tuple[str, ...]:
        """The folder of the cache; empty without one."""
        return (self.embedding_cache,) if self.embedding_cache else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedFlags:
    """A command line of `pipelines.embed`, read and checked.

    Attributes:
      options: the options of the job: those of the command line, then those of the recipe, then the defaults.
      recipe: the recipe that the command line names, or a recipe with defaults only.
      beam_flags: all other flags, for Beam.
      own_words: the words of the command line that are not flags of Beam, in their order.
      own_names: the names of all flags that this program defines.
      program: the subcommand of `hugs` that has this command line.
    """

    options: JobOptions
    recipe: Recipe
    beam_flags: tuple[str, ...]
    own_words: tuple[str, ...]
    own_names: tuple[str, ...]
    program: str = "embed"


def read_flags(argv: Sequence[str] | None) -> EmbedFlags:
    """Reads a command line, and the recipe that it names.

    Args:
      argv: the words after the program's name; None for those of this process.

    Raises:
      InputError: a flag or the recipe is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args, beam_flags = parser.parse_known_args(words)
    recipe = load_recipe(args.recipe) if args.recipe else Recipe(name="none")
    values = dataclasses.asdict(recipe.preprocess)
    if args.input_path and all(_is_held_out(path_argument(path), recipe) for path in args.input_path):
        values = {name: value for name, value in values.items() if name not in VIEW_OPTIONS}
    values = override(values, args, JobOptions)
    return EmbedFlags(
        options=JobOptions(**values),
        recipe=recipe,
        beam_flags=tuple(beam_flags),
        own_words=tuple(words_without(words, beam_flags)),
        own_names=tuple(parser.flags),
    )


def of_each_backbone(options: JobOptions) -> dict[str, JobOptions]:
    """The options of the job of each backbone, by the name of its folder.

    With one backbone they are those that were given. With several, each has an output of its own: `{backbone}` in paths
    stands for the name, and if it is not in the output, each backbone has a folder before the name of the set.

    Raises:
      InputError: the names of the backbones are wrong, or do not go together with the weights.
    """
    each = options_of_each(options)
    output = path_of_each(options.output_path) if len(each) > 1 else options.output_path
    return {
        name: dataclasses.replace(
            of_one,
            output_path=path_for(output, name),
            against=tuple(path_for(prefix, name) for prefix in options.against),
        )
        for name, of_one in each.items()
    }


def _is_held_out(path: str, recipe: Recipe) -> bool:
    """Whether a list is one that the recipe evaluates on. Several views of an image are for its training list."""
    lists = recipe.lists

    def is_named(name: str | None) -> bool:
        return name is not None and f"/{path}".endswith(f"/{name.lstrip('/')}")

    return (is_named(lists.eval) or is_named(lists.test)) and not is_named(lists.train)


def with_flags(defaults: PreprocessOptions, args: argparse.Namespace) -> PreprocessOptions:
    """A recipe's options, with those that the command line overrides.

    Raises:
      InputError: a value is out of range.
    """
    return type(defaults)(**override(dataclasses.asdict(defaults), args, defaults))


def words_without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words of a command line without the `others`, in their order."""
    left = iter(others)
    other = next(left, None)
    taken = []
    for word in words:
        if word == other:
            other = next(left, None)
        else:
            taken.append(word)
    return taken


def _parser() -> OneLineParser:
    parser = OneLineParser(
        module="pipelines.embed",
        description="From lists of labelled image URIs to records: runs the Beam pipeline that embeds every image.",
        epilog="All other flags are passed to Apache Beam, for example --runner DataflowRunner.",
    )
    of_paths, of_job = options_of(PathOptions), options_of(JobOptions)
    add_flags(parser, of_paths)
    add_flags(parser, options_of(OptionalRecipe))
    add_flags(parser, {name: described for name, described in of_job.items() if name not in of_paths})
    return parser
