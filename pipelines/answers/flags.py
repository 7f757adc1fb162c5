"""The flags of `pipelines.predict`: what it answers with, what it answers, and those of `pipelines.embed`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from configs.arguments import OneLineParser
from configs.choices import AnswerFormat, Compression, EngineName, PrecisionName
from configs.errors import InputError
from configs.option import Options, add_flags, given_values, option, options_of, same_option
from configs.recipe import BackboneOptions, OptionalRecipe, PreprocessOptions, Recipe, load_recipe
from configs.rules import OneOf, PathText, PathTexts, RepeatedPaths, Whole
from pipelines.checks.embed_flags import JobOptions, words_without
from trainer.arguments import split_paths

_OF_BACKBONE = tuple(options_of(BackboneOptions))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerOptions(Options):
    """The options of the program. Of those that embed, it has the same ones as `pipelines.embed`.

    Raises:
      InputError: a value breaks its rule, or options contradict each other.
    """

    prefix: ClassVar[str] = "--"

    input_path: tuple[str, ...] = option(
        (),
        RepeatedPaths(),
        help="photos to answer for: a list with the image in its first column, a folder, or a glob of photos or lists; "
        "one or more. Labels in a list are kept beside the answers",
        decides="records",
        metavar="LIST|FOLDER|GLOB",
        held_as=("input_path",),
    )
    data_paths: tuple[str, ...] = option(
        (),
        RepeatedPaths(),
        help="finished record sets to answer for, in place of photos: no image is read; one or more, also separated by "
        "commas",
        decides="neither",
        metavar="SET*",
    )
    output_path: str = same_option(
        JobOptions, "output_path", help="the answers to write, for example out/answers", metavar="PREFIX"
    )
    model_dir: str | None = option(
        None,
        PathText(),
        help="the model that `hugs train` wrote; without one, a --backbone answers with ImageNet's classes",
        decides="neither",
        metavar="DIR",
    )
    format: AnswerFormat = option("csv", OneOf.of(AnswerFormat), help="format of the answers", decides="neither")
    top_k: int | None = option(
        None,
        Whole(1),
        help="best classes to write for each photo",
        decides="neither",
        metavar="K",
        default_words="5, or all if there are fewer",
    )
    rows_per_file: int = option(1_000_000, Whole(1), help="answers in a file, about", decides="neither", metavar="N")
    labels: tuple[str, ...] = option(
        (),
        PathTexts(),
        help="without a model: names of the network's classes, as for hugs classify",
        decides="neither",
        metavar="FILE",
    )
    weights: str | None = same_option(
        BackboneOptions,
        "weights",
        default=None,
        help="with a model: its network's file, if it moved since the records were made; without a model as for "
        "pipelines.embed",
        default_words="those that made the model's records; without a model imagenet",
    )
    backbone: str | None = same_option(
        BackboneOptions,
        "backbone",
        default=None,
        help="without a model: the network that answers with its own classes",
        default_words="none",
    )
    seed: int | None = same_option(BackboneOptions, "seed", default=None)
    input_tensor: str | None = same_option(BackboneOptions, "input_tensor")
    output_tensor: str | None = same_option(
        BackboneOptions, "output_tensor", help="of a --backbone PATH: the tensor that holds the scores of its classes"
    )
    image_size: int | None = same_option(BackboneOptions, "image_size")
    scaling: str | None = same_option(BackboneOptions, "scaling")
    engine: EngineName = same_option(PreprocessOptions, "engine")
    precision: PrecisionName = same_option(PreprocessOptions, "precision")
    batch_size: int | None = same_option(JobOptions, "batch_size")
    compression: Compression = same_option(PreprocessOptions, "compression")
    rows_per_shard: int = same_option(PreprocessOptions, "rows_per_shard")
    max_image_bytes: int = same_option(PreprocessOptions, "max_image_bytes")
    max_image_pixels: int = same_option(PreprocessOptions, "max_image_pixels")
    image_deadline_sec: float = same_option(PreprocessOptions, "image_deadline_sec")
    max_failed_percent: float = same_option(PreprocessOptions, "max_failed_percent")
    storage_retry_sec: float = same_option(PreprocessOptions, "storage_retry_sec")
    connections_per_host: int = same_option(PreprocessOptions, "connections_per_host")
    web_contact: str | None = same_option(PreprocessOptions, "web_contact")
    embedding_cache: str | None = same_option(JobOptions, "embedding_cache")
    retry_failures: str | None = same_option(
        JobOptions, "retry_failures", help="try the failed photos again, all or those of some reasons, and answer anew"
    )
    overwrite: bool = same_option(
        JobOptions,
        "overwrite",
        help="replace the answers at --output_path, as soon as the new ones are ready. What is embedded of the same "
        "photos by the same network is used again",
    )
    verify: bool = same_option(JobOptions, "verify", help="read every file of the finished work and compare its digest")
    plan: int | None = option(
        None,
        Whole(1),
        help="try N of the photos, print how long all will take here and on Dataflow and what that costs, and start "
        "nothing",
        decides="neither",
        metavar="N",
    )
    dry_run: bool = same_option(JobOptions, "dry_run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.input_path) == bool(self.data_paths):
            raise InputError("Pass --input_path, or --data_paths for finished record sets; one of the two.")
        if self.model_dir is None and self.backbone is None:
            raise InputError("Pass --model_dir, or --backbone for the classes of a network itself; one of the two.")
        if self.model_dir is not None:
            for name in (*_OF_BACKBONE, "labels"):
                if name != "weights" and getattr(self, name) not in (None, ()):
                    raise InputError(f"--{name}: the model says it. Leave it out, or leave out --model_dir.")
        for name in ("retry_failures", "plan") if self.data_paths else ():
            if getattr(self, name) is not None:
                raise InputError(f"--{name}: is about photos that are embedded, and --data_paths names embedded ones.")

    def job_options(self, **changes: Any) -> dict[str, Any]:
        """The values of the options of `pipelines.embed`, with changes."""
        of_job = options_of(JobOptions)
        values = {name: getattr(self, name) for name in options_of(self) if name in of_job}
        given = {name: value for name, value in values.items() if name not in _OF_BACKBONE or value is not None}
        # The dictionary is not read from a file, and labels that are not in it are dropped.
        return {**given, "input_dict": "-", "unknown_labels": "unlabeled", "wait": True, **changes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFlags:
    """A command line of `pipelines.predict`, read and checked.

    Attributes:
      options: of the program.
      recipe: the recipe that the command line names, or one with defaults only.
      beam_flags: all other flags, for Beam.
      own_words: the words of the command line that are not flags of Beam, in their order.
      own_names: the names of all flags that this program defines.
    """

    options: AnswerOptions
    recipe: Recipe
    beam_flags: tuple[str, ...]
    own_words: tuple[str, ...]
    own_names: tuple[str, ...]


def read_answer_flags(argv: Sequence[str] | None) -> AnswerFlags:
    """Reads a command line, and the recipe that it names.

    Raises:
      InputError: a flag or the recipe is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = OneLineParser(
        module="pipelines.predict",
        description="Answers for many photos: runs the Beam pipeline that embeds them, and a model on the embeddings.",
        epilog="All other flags are passed to Apache Beam, for example --runner DataflowRunner.",
    )
    add_flags(parser, options_of(AnswerOptions))
    add_flags(parser, options_of(OptionalRecipe))
    args, beam_flags = parser.parse_known_args(words)
    recipe = load_recipe(args.recipe) if args.recipe else Recipe(name="none")
    of_recipe = dataclasses.asdict(recipe.preprocess) if args.recipe else {}
    given = given_values(args, AnswerOptions)
    if "data_paths" in given:
        given["data_paths"] = split_paths(given["data_paths"])
    names = set(options_of(AnswerOptions)) - set(_OF_BACKBONE)
    values = {name: value for name, value in of_recipe.items() if name in names}
    return AnswerFlags(
        options=AnswerOptions(**{**values, **given}),
        recipe=recipe,
        beam_flags=tuple(beam_flags),
        own_words=tuple(words_without(words, beam_flags)),
        own_names=tuple(parser.flags),
    )
