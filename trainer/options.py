"""The options of a training run: checked once, frozen, and written into its metrics."""

from __future__ import annotations

import dataclasses
import math
import os
import posixpath
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from configs.arguments import OneLineParser
from configs.choices import ExportFormat, OptimizerName
from configs.errors import InputError
from configs.option import REQUIRED, Options, add_flags, option, options_of
from configs.recipe import TrainOptions, load_recipe
from configs.rules import Number, Rule, Switch, Texts, Whole
from configs.section import FieldError
from trainer.arguments import split_paths
from trainer.storage.files import supported_path

OPTIMIZERS = typing.get_args(OptimizerName)
EXPORT_FORMATS = typing.get_args(ExportFormat)
_MAX_SEED = 2**31 - 1
# What `trainer.search.tuning` searches.
SEARCHED = ("hidden_units", "dropout", "learning_rate", "l2", "label_smoothing", "batch_size", "optimizer")

# Which folders Vertex AI names in the environment of a training job.
_VERTEX_FOLDERS = {
    "checkpoint_dir": "AIP_CHECKPOINT_DIR",
    "log_dir": "AIP_TENSORBOARD_LOG_DIR",
    "export_dir": "AIP_MODEL_DIR",
}


@dataclasses.dataclass(frozen=True)
class Path(Rule):
    """The path of a file or a folder, local or gs://.

    Attributes:
      of: "a file" or "a folder".
      or_empty: whether the empty text is allowed; it is as good as no path.
      or_name: whether it may be a name that is no path, so that nothing else is said of it.
    """

    of: str
    or_empty: bool = False
    or_name: bool = False

    @property
    def words(self) -> str:
        """See `Rule`."""
        return f"the path of {self.of}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and (bool(value) or self.or_empty)


@dataclasses.dataclass(frozen=True)
class ListOfTexts(Texts):
    """Any number of texts: its flag may be repeated, take several, and separate them by commas."""

    flag: ClassVar[dict[str, Any]] = {"action": "extend", "nargs": "+"}


@dataclasses.dataclass(frozen=True)
class Paths(ListOfTexts):
    """Any number of paths."""

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "paths"


@dataclasses.dataclass(frozen=True)
class SomeOf(ListOfTexts):
    """One or more of a few names."""

    names: tuple[str, ...]

    @property
    def words(self) -> str:
        """See `Rule`."""
        return f"some of {', '.join(self.names)}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return super().holds(value) and bool(value) and set(value) <= set(self.names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """What a run reads and where it writes. Records, folders and dictionaries are local or gs://."""

    prefix: ClassVar[str] = "--"

    train_data_paths: tuple[str, ...] = option(
        (),
        Paths(),
        help="shards, globs ('out/preproc/train*') or set prefixes to train on; repeat or separate by commas",
        decides="model",
        held_as=("training data",),
        metavar="PATH",
    )
    eval_data_paths: tuple[str, ...] = option(
        (),
        Paths(),
        help="the same, to evaluate on and to choose the checkpoint by",
        decides="model",
        held_as=("evaluation data",),
        metavar="PATH",
    )
    test_data_paths: tuple[str, ...] = option(
        (),
        Paths(),
        help="the same, evaluated once at the end",
        decides="neither",
        metavar="PATH",
        default_words="none",
    )
    output_path: str = option(
        REQUIRED,
        Path("a folder"),
        help="folder for checkpoints, logs, metrics.json and the model",
        decides="neither",
    )
    checkpoint_dir: str | None = option(
        None,
        Path("a folder", or_empty=True),
        help="of the checkpoints",
        decides="neither",
        metavar="DIR",
        default_words="AIP_CHECKPOINT_DIR, else in output_path",
    )
    log_dir: str | None = option(
        None,
        Path("a folder", or_empty=True),
        help="of TensorBoard",
        decides="neither",
        metavar="DIR",
        default_words="AIP_TENSORBOARD_LOG_DIR, else in output_path",
    )
    export_dir: str | None = option(
        None,
        Path("a folder", or_empty=True),
        help="where a copy of the model goes",
        decides="neither",
        metavar="DIR",
        default_words="AIP_MODEL_DIR, else none",
    )
    input_dict: str | None = option(
        None,
        Path("a file"),
        help="dict.txt of records that were made elsewhere",
        decides="model",
        held_as=("training data", "evaluation data"),
        metavar="FILE",
    )
    photo_dirs: tuple[str, ...] = option(
        (),
        Paths(),
        help="photos that records name are read, for thumbnails and checks, only in these folders",
        decides="neither",
        metavar="DIR",
        default_words="wherever they lie; none for records that were made elsewhere",
    )
    # The head is trained on the embeddings of the records, whatever network the exported model contains.
    weights: str | None = option(
        None,
        Path("a file", or_name=True),
        help="the backbone's weights file, if it moved since the records were made",
        decides="neither",
        metavar="FILE",
    )
    max_memory_mb: int | None = option(
        None,
        Whole(1),
        help="MiB of embeddings to hold in memory; more is read from the shards in each epoch",
        decides="neither",
        metavar="MB",
        default_words="half of the available memory",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(TrainOptions, DataOptions):
    """All that a training run is told: what it reads and writes, what a recipe says of the model, and the rest.

    Raises:
      InputError: a value breaks its rule; the message names the flag and the value.
    """

    prefix: ClassVar[str] = "--"

    eval_every_steps: int = option(
        25, Whole(1), help="steps between evaluations, each a chance for the best checkpoint", decides="model"
    )
    standardize: bool = option(
        True,
        Switch(),
        help="center and scale the embeddings by the training set's statistics",
        decides="model",
    )
    # The definition of a checkpoint has the settings that were found, as if they had been given.
    tune: int = option(
        0,
        Whole(0),
        help="trials of a search for the head's settings by cross-validation; 0 for none",
        decides="model",
        held_as=SEARCHED,
    )
    tune_sec: float | None = option(
        None,
        Number(above=0, unit="seconds"),
        help="seconds after which --tune begins no more trials",
        decides="model",
        held_as=SEARCHED,
        metavar="SEC",
    )
    seeds: int = option(
        1,
        Whole(1),
        help="seeds to train with, to report mean and spread; the model is that of the first",
        decides="neither",
    )
    learning_curve: bool = option(False, Switch(), help="measure what more examples would bring", decides="neither")
    # The threshold is chosen after training, in every run anew.
    min_precision: float = option(
        0.95,
        Number(above=0, at_most=1),
        help="share of right answers that the model's score threshold is chosen for",
        decides="neither",
    )
    write_predictions: bool = option(
        False,
        Switch(),
        help="write predictions.csv; without --train_data_paths, or with --model_dir, of an existing model",
        decides="neither",
    )
    model_dir: str | None = option(
        None,
        Path("a folder"),
        help="the model that --write_predictions evaluates",
        decides="neither",
        metavar="DIR",
        default_words="OUTPUT_PATH/model",
    )
    export_formats: tuple[str, ...] = option(
        ("savedmodel",),
        SomeOf(EXPORT_FORMATS),
        help="of savedmodel, litert and onnx, always with savedmodel; repeat or separate by commas",
        decides="neither",
        metavar="FORMAT",
        default_words="savedmodel",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # A recipe may have a larger one, which no part of the trainer takes.
        if self.seed > _MAX_SEED:
            self._fail("seed", f"a whole number of at most {_MAX_SEED}")
        self._check_data()

    def _check_data(self) -> None:
        if self.evaluates_only and not (self.eval_data_paths or self.test_data_paths):
            raise FieldError("--eval_data_paths", "or --test_data_paths must name what the model is to be evaluated on")
        for field in () if self.evaluates_only else ("train_data_paths", "eval_data_paths"):
            if not getattr(self, field):
                raise FieldError(f"--{field}", "must name at least one file or glob")
        if self.model_dir is not None and not self.write_predictions:
            raise FieldError(
                "--model_dir",
                "names an existing model to evaluate, so it goes with --write_predictions. "
                f"Received: {self.model_dir!r}.",
            )

    @property
    def checkpoint_folder(self) -> str:
        """Where the checkpoints lie."""
        return self.checkpoint_dir or posixpath.join(self.output_path, "checkpoints")

    @property
    def log_folder(self) -> str:
        """Where the TensorBoard logs lie."""
        return self.log_dir or posixpath.join(self.output_path, "logs")

    @property
    def evaluates_only(self) -> bool:
        """True if an existing model is to be evaluated and nothing trained."""
        return self.write_predictions and (self.model_dir is not None or not self.train_data_paths)

    @property
    def existing_model_dir(self) -> str:
        """The model that is evaluated where nothing is trained."""
        return self.model_dir or posixpath.join(self.output_path, "model")

    def batch_rows(self, num_examples: int) -> int:
        """Examples in a step of a training set of so many: a batch never holds an example twice."""
        return min(self.batch_size, num_examples)

    def num_steps(self, num_examples: int) -> int:
        """Steps of a whole training on so many examples; early stopping may take fewer."""
        if self.epochs is None:
            return self.max_steps
        return math.ceil(self.epochs * num_examples / self.batch_rows(num_examples))

    def to_json(self) -> dict[str, Any]:
        """The options as JSON."""
        return dataclasses.asdict(self)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m trainer.task",
        description="Trains a classifier on the embeddings of a record set and exports it as one SavedModel.",
    )
    of_data, of_run = options_of(DataOptions), options_of(TrainingOptions)
    add_flags(parser, of_data)
    parser.add_argument("--recipe", help="name or file of a recipe that gives defaults of the flags below")
    add_flags(parser, {name: described for name, described in of_run.items() if name not in of_data})
    return parser


def parse_options(argv: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> TrainingOptions:
    """Reads the command line; where a flag is absent, its default is the recipe's, else the class's.

    Args:
      argv: the arguments without the program's name; None for those of the process.
      environ: where Vertex AI says which folders it expects, unless flags name others.

    Raises:
      InputError: a flag is unknown, missing or breaks its rule, or the recipe cannot be read.
    """
    given = vars(_parser().parse_args(argv))
    if given["max_steps"] is not None and given["epochs"] is not None:
        raise InputError(
            f"--max_steps and --epochs both say how long to train. Received: {given['max_steps']} and "
            f"{given['epochs']}. Give one of them."
        )
    values: dict[str, Any] = {}
    recipe_name = given.pop("recipe")
    if recipe_name is not None:
        values.update(dataclasses.asdict(load_recipe(recipe_name).train))
        if given["max_steps"] is not None:  # What is said on the command line wins over the recipe's epochs.
            values["epochs"] = None
    rules = {name: described.rule for name, described in options_of(TrainingOptions).items()}
    for field, rule in rules.items():
        if isinstance(rule, ListOfTexts) and given[field] is not None:
            given[field] = split_paths(given[field])
    values.update({field: environ[name] for field, name in _VERTEX_FOLDERS.items() if environ.get(name)})
    values.update({field: value for field, value in given.items() if value is not None})
    for field, value in values.items():
        rule = rules[field]
        if isinstance(rule, Paths):
            values[field] = tuple(supported_path(path, flag=field) for path in value)
        elif isinstance(rule, Path) and value is not None and not rule.or_name:
            values[field] = supported_path(value, flag=field)
    return TrainingOptions(**values)
