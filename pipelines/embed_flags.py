"""The flags of `pipelines.embed`, and how those of a command line override a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.errors import InputError
from configs.recipe import PreprocessOptions, Recipe, load_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedFlags:
    """What a command line asks of `pipelines.embed`.

    Attributes:
      input_path: lists, or globs of lists.
      input_dict: dict.txt.
      output_path: prefix of the set.
      recipe: that was named, or one that says nothing.
      options: those of the recipe, with what the command line gives in their stead.
      batch_size: images a batch; None for what suits the engine.
      embedding_cache: its folder, if there is to be one.
      against: prefixes of finished sets to compare with.
      retry_failures: reasons of the rows to try again, with commas between them, or "all"; None for a whole list.
      overwrite: replace what lies at the output.
      verify: read every file of a finished set, before there is nothing to do.
      prediction: a plan to compare with.
      wait: for the end, wherever the job runs.
      dry_run: start nothing.
      beam_flags: all others, for Beam.
      own_words: the words of the command line that are none of Beam's flags, in their order.
      own_names: of all flags that are known here.
    """

    input_path: tuple[str, ...]
    input_dict: str
    output_path: str
    recipe: Recipe
    options: PreprocessOptions
    batch_size: int | None
    embedding_cache: str | None
    against: tuple[str, ...]
    retry_failures: str | None
    overwrite: bool
    verify: bool
    prediction: str | None
    wait: bool
    dry_run: bool
    beam_flags: tuple[str, ...]
    own_words: tuple[str, ...]
    own_names: tuple[str, ...]

    @property
    def embedding_caches(self) -> tuple[str, ...]:
        """The folder of the cache; empty without one."""
        return (self.embedding_cache,) if self.embedding_cache else ()


def read_flags(argv: Sequence[str] | None) -> EmbedFlags:
    """Reads a command line, and the recipe that it names.

    Args:
      argv: the words after the program's name; None for those of this process.

    Raises:
      InputError: a flag or the recipe is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for word in words:
        require_utf8(word, where="the command line")
    parser = _parser()
    args, beam_flags = parser.parse_known_args(words)
    recipe = load_recipe(args.recipe) if args.recipe else Recipe(name="none")
    options = with_flags(recipe.preprocess, args)
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"batch_size: must be at least 1. Received: {args.batch_size}")
    if args.retry_failures is not None and args.overwrite:
        raise InputError("retry_failures: completes the set that is there, which --overwrite would replace. Pass one.")
    if args.verify and args.overwrite:
        raise InputError("verify: looks at the set that is there, which --overwrite would replace. Pass one.")
    return EmbedFlags(
        input_path=tuple(args.input_path),
        input_dict=args.input_dict,
        output_path=args.output_path,
        recipe=recipe,
        options=options,
        batch_size=args.batch_size,
        embedding_cache=args.embedding_cache,
        against=tuple(args.against),
        retry_failures=args.retry_failures,
        overwrite=args.overwrite,
        verify=args.verify,
        prediction=args.prediction,
        wait=args.wait,
        dry_run=args.dry_run,
        beam_flags=tuple(beam_flags),
        own_words=tuple(_without(words, beam_flags)),
        own_names=tuple(parser.flags),
    )


def require_utf8(text: str, *, where: str) -> None:
    """Makes sure that a path can stand in the files of a set, and pass between the stages of a pipeline.

    Args:
      text: the path, or a word of the command line.
      where: names its place in the message.

    Raises:
      InputError: it holds bytes that are not UTF-8, as the names of files may.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise InputError(
            f"{where}: {text!r} is not UTF-8 (byte 0x{byte:02x}), and a set names its files and lists in UTF-8. Rename "
            "the file or folder."
        ) from error


def with_flags(defaults: PreprocessOptions, args: argparse.Namespace) -> PreprocessOptions:
    """A recipe's options, with what a command line gives in their stead.

    Raises:
      InputError: a value is out of range.
    """
    names = (field.name for field in dataclasses.fields(defaults))
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return dataclasses.replace(defaults, **given)


def _without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words of a command line that the parser took, in their order; it left the others in theirs."""
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
        prog="python -m pipelines.embed",
        description="From lists of labelled image URIs to records: runs the Beam pipeline that embeds every image.",
        epilog="All other flags are passed to Apache Beam, for example --runner DataflowRunner.",
    )
    # In the order in which --help lists them.
    _add_paths(parser)
    _add_network(parser)
    _add_records(parser)
    _add_limits(parser)
    _add_course(parser)
    return parser


def _add_paths(parser: OneLineParser) -> None:
    parser.add_argument(
        "--input_path",
        action="append",
        required=True,
        metavar="LIST",
        help="CSV list of rows image_uri,label[,label...], or a glob of lists; may be repeated. Relative image URIs "
        "are relative to the list that names them",
    )
    parser.add_argument("--input_dict", required=True, metavar="FILE", help="dict.txt: the labels, one a line")
    parser.add_argument(
        "--output_path",
        required=True,
        metavar="PREFIX",
        help="the set to write, for example out/preproc/train",
    )
    parser.add_argument("--recipe", metavar="NAME|FILE", help="recipe that gives the defaults of the flags below")


def _add_network(parser: OneLineParser) -> None:
    parser.add_argument("--backbone", help="network that makes the embeddings (default: inception_v3)")
    parser.add_argument(
        "--weights",
        metavar="imagenet|random|PATH",
        help="imagenet (default), random (for trying things out; see --seed), or a weights file that Keras can read",
    )
    parser.add_argument("--seed", type=int, help="seed of random weights (default: 0)")
    parser.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "openvino"),
        help="what runs the network (default: auto, the fastest that is installed)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "int8"),
        help="of the network's arithmetic: auto (default) takes bfloat16 where it is faster and agrees with float32; "
        "int8 is calibrated on a sample of the list",
    )


def _add_records(parser: OneLineParser) -> None:
    parser.add_argument("--compression", choices=("none", "gzip"), help="of the records (default: none)")
    parser.add_argument(
        "--unknown_labels",
        choices=("fail", "skip", "unlabeled"),
        help="a label that dict.txt lacks: stop before the start (default), skip the row, or drop the label",
    )
    parser.add_argument("--rows_per_shard", type=int, metavar="N", help="rows a shard (default: 1024)")
    parser.add_argument("--batch_size", type=int, metavar="N", help="images a batch (default: what suits the engine)")


def _add_limits(parser: OneLineParser) -> None:
    parser.add_argument(
        "--max_failed_percent",
        type=float,
        metavar="PERCENT",
        help="the job fails if a larger share of the images does (default: 10)",
    )
    parser.add_argument("--max_image_bytes", type=int, metavar="N", help="a larger image file fails (default: 256 MiB)")
    parser.add_argument(
        "--max_image_pixels",
        type=int,
        metavar="N",
        help="an image of more pixels, by its header, fails (default: 120 million)",
    )
    parser.add_argument(
        "--image_deadline_sec",
        type=float,
        metavar="SEC",
        help="an image that takes longer to read, or to decode, fails (default: 60)",
    )
    parser.add_argument(
        "--storage_retry_sec",
        type=float,
        metavar="SEC",
        help="how long faults of remote storage that may pass are tried again (default: 120)",
    )


def _add_course(parser: OneLineParser) -> None:
    parser.add_argument(
        "--embedding_cache",
        metavar="FOLDER",
        help="local or remote folder of embeddings by the content of the image file: what it holds is not computed "
        "again, whatever the list or the file is called; it grows by what is computed",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="PREFIX",
        help="a finished set, for example that of the training list: the report counts the images that are in both; "
        "may be repeated",
    )
    parser.add_argument(
        "--retry_failures",
        nargs="?",
        const="all",
        metavar="REASON[,REASON]",
        help="of a finished set: try the rows of its ledger again, all or those of some reasons, and complete the set",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what lies at --output_path, once the new set is ready"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="of a finished set: read every file and compare its digest; what is lost is embedded again, or with "
        "--dry_run only named",
    )
    parser.add_argument(
        "--prediction",
        metavar="FILE",
        help="a plan that pipelines.plan made of these lists: the report compares it with what the run took",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a job on Dataflow, and end as a run on this machine does; other runners are waited for anyway",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check what can be checked without writing, print the command with all of Beam's flags, start nothing",
    )
