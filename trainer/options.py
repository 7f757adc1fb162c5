"""The options of a training run: checked once, frozen, and written into its metrics."""

from __future__ import annotations

import dataclasses
import math
import os
import posixpath
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from configs.arguments import OneLineParser
from configs.choices import ExportFormat, OptimizerName
from configs.errors import InputError
from configs.file_uris import path_argument
from configs.option import REQUIRED, Options, add_flags, option, options_of
from configs.recipe import OptionalRecipe, TrainOptions, load_recipe
from configs.rules import Number, Rule, Switch, Texts, Whole
from configs.section import FieldError
from trainer.arguments import split_paths, split_texts
from trainer.storage.files import supported_path

OPTIMIZERS = typing.get_args(OptimizerName)
EXPORT_FORMATS = typing.get_args(ExportFormat)
_MAX_SEED = 2**31 - 1
# The settings that `trainer.search.tuning` searches.
SEARCHED = ("hidden_units", "dropout", "learning_rate", "l2", "label_smoothing", "batch_size", "optimizer")

# The environment variables by which Vertex AI names the folders of a training job.
_VERTEX_FOLDERS = {
    "checkpoint_dir": "AIP_CHECKPOINT_DIR",
    "log_dir": "AIP_TENSORBOARD_LOG_DIR",
    "export_dir": "AIP_MODEL_DIR",
}


# What a run does with a path: it reads from the path, it writes to the path, or the path only says where it may read.
PathUse = Literal["read", "written", "allowed"]


@dataclasses.dataclass(frozen=True)
class Path(Rule):
    """The path of a file or a folder, local or gs://.

    Attributes:
      of: "a file" or "a folder".
      use: what a run does with the path.
      or_empty: whether the empty text is allowed; it means no path.
      or_name: whether the value may also be a name that is not a path.
    """

    of: str
    use: PathUse
    or_empty: bool = False
    or_name: bool = False

    @property
    def words(self) -> str:
        """See `Rule`."""
        return f"the path of {self.of}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and (bool(value) or self.or_empty)

    def normal(self, value: Any) -> Any:
        """See `Rule`."""
        return path_argument(value)


@dataclasses.dataclass(frozen=True)
class ListOfTexts(Texts):
    """Any number of texts: its flag may be repeated, take several, and separate them by commas."""

    flag: ClassVar[dict[str, Any]] = {"action": "extend", "nargs": "+"}


@dataclasses.dataclass(frozen=True)
class Paths(ListOfTexts):
    """Any number of paths.

    Attributes:
      use: what a run does with the paths.
    """

    use: PathUse

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
    """The data that a run reads, and the folders that it writes into; all local or gs://."""

    prefix: ClassVar[str] = "--"

    train_data_paths: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="shards, globs ('out/preproc/train*') or set prefixes to train on; repeat or separate by commas",
        decides="model",
        held_as=("training data",),
        metavar="PATH",
    )
    eval_data_paths: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="the same for the evaluation set, which also chooses the checkpoint",
        decides="model",
        held_as=("evaluation data",),
        metavar="PATH",
    )
    test_data_paths: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="the same for the test set, which is evaluated once at the end",
        decides="neither",
        metavar="PATH",
        default_words="none",
    )
    output_path: str = option(
        REQUIRED,
        Path("a folder", "written"),
        help="folder for checkpoints, logs, metrics.json and the model",
        decides="neither",
    )
    checkpoint_dir: str | None = option(
        None,
        Path("a folder", "written", or_empty=True),
        help="folder for the checkpoints",
        decides="neither",
        metavar="DIR",
        default_words="AIP_CHECKPOINT_DIR, else in output_path",
    )
    log_dir: str | None = option(
        None,
        Path("a folder", "written", or_empty=True),
        help="folder for the logs of TensorBoard",
        decides="neither",
        metavar="DIR",
        default_words="AIP_TENSORBOARD_LOG_DIR, else in output_path",
    )
    export_dir: str | None = option(
        None,
        Path("a folder", "written", or_empty=True),
        help="folder for a copy of the model",
        decides="neither",
        metavar="DIR",
        default_words="AIP_MODEL_DIR, else none",
    )
    input_dict: str | None = option(
        None,
        Path("a file", "read"),
        help="the dict.txt of records that were made elsewhere",
        decides="model",
        held_as=("training data", "evaluation data"),
        metavar="FILE",
    )
    photo_dirs: tuple[str, ...] = option(
        (),
        Paths("allowed"),
        help="read photos that records name, for thumbnails and checks, only in these folders",
        decides="neither",
        metavar="DIR",
        default_words="all folders; none for records that were made elsewhere",
    )
    # This does not influence the training: the head is trained on the embeddings in the records.
    weights: str | None = option(
        None,
        Path("a file", "read", or_name=True),
        help="the backbone's file (of weights, or of the whole network), if it moved since the records were made",
        decides="neither",
        metavar="FILE",
    )
    max_memory_mb: int | None = option(
        None,
        Whole(1),
        help="MiB of embeddings to hold in memory; larger sets are read from the shards in each epoch",
        decides="neither",
        metavar="MB",
        default_words="half of the available memory",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(TrainOptions, DataOptions):
    """All options of a training run: the data, the options that a recipe may set, and the others.

    Raises:
      InputError: a value breaks its rule; the message names the flag and the value.
    """

    prefix: ClassVar[str] = "--"

    eval_every_steps: int = option(
        25, Whole(1), help="steps between evaluations; the best checkpoint is chosen among them", decides="model"
    )
    standardize: bool = option(
        True,
        Switch(),
        help="center and scale the embeddings by the training set's statistics",
        decides="model",
    )
    # The digest of the training data says how many views are drawn from.
    draw_views: bool = option(
        True,
        Switch(),
        help="each time an example is trained on, draw one of its views; if not, take the undistorted one",
        decides="model",
        held_as=("training data",),
    )
    # The definition of a checkpoint holds the settings that a search found, as if the user had given them.
    tune: int = option(
        0,
        Whole(0),
        help="how many settings of the head to try by cross-validation; 0 for no search",
        decides="model",
        held_as=SEARCHED,
    )
    tune_sec: float | None = option(
        None,
        Number(above=0, unit="seconds"),
        help="seconds after which --tune begins no further trial",
        decides="model",
        held_as=SEARCHED,
        metavar="SEC",
    )
    seeds: int = option(
        1,
        Whole(1),
        help="number of seeds to train with, for mean and spread; the first seed gives the model",
        decides="neither",
    )
    compare_views: bool = option(
        True,
        Switch(),
        help="measure what the views of the training images brought: three heads or --seeds of them, with and without "
        "views",
        decides="neither",
    )
    learning_curve: bool = option(False, Switch(), help="measure how much more examples would help", decides="neither")
    # Every run chooses the threshold again after training.
    min_precision: float = option(
        0.95,
        Number(above=0, at_most=1),
        help="share of the confident predictions that must be right; the score threshold is chosen for it",
        decides="neither",
    )
    write_predictions: bool = option(
        False,
        Switch(),
        help="write predictions.csv; without --train_data_paths, or with --model_dir, for an existing model",
        decides="neither",
    )
    check_photos: int = option(
        200,
        Whole(0),
        help="photos of each set, at most, to read at the end: those of held-out sets to measure the exported model "
        "itself on, those of the training set to keep in the model how they look; 0 for none",
        decides="neither",
    )
    model_dir: str | None = option(
        None,
        Path("a folder", "read"),
        help="the existing model that --write_predictions evaluates",
        decides="neither",
        metavar="DIR",
        default_words="OUTPUT_PATH/model",
    )
    export_formats: tuple[str, ...] = option(
        ("savedmodel",),
        SomeOf(EXPORT_FORMATS),
        help="any of savedmodel, litert and onnx; savedmodel is always written; repeat or separate by commas",
        decides="neither",
        metavar="FORMAT",
        default_words="savedmodel",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # A recipe may have a larger seed, but the trainer cannot use it.
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
        """The folder of the checkpoints."""
        return self.checkpoint_dir or posixpath.join(self.output_path, "checkpoints")

    @property
    def log_folder(self) -> str:
        """The folder of the TensorBoard logs."""
        return self.log_dir or posixpath.join(self.output_path, "logs")

    @property
    def evaluates_only(self) -> bool:
        """True if the run only evaluates an existing model and trains nothing."""
        return self.write_predictions and (self.model_dir is not None or not self.train_data_paths)

    @property
    def existing_model_dir(self) -> str:
        """The folder of the model that a run without training evaluates."""
        return self.model_dir or posixpath.join(self.output_path, "model")

    def batch_rows(self, num_examples: int) -> int:
        """The batch size for a training set of `num_examples`: a batch never holds an example twice."""
        return min(self.batch_size, num_examples)

    def num_steps(self, num_examples: int) -> int:
        """The number of steps of a training on `num_examples`; early stopping may end it earlier."""
        if self.epochs is None:
            return self.max_steps
        return math.ceil(self.epochs * num_examples / self.batch_rows(num_examples))

    def paths_that_are(self, use: PathUse) -> dict[str, tuple[str, ...]]:
        """The paths that the run reads or writes, by the name of the option. Options without a path are left out."""
        found = {}
        for name, described in options_of(self).items():
            value = getattr(self, name)
            if isinstance(described.rule, Path | Paths) and described.rule.use == use and value:
                found[name] = (value,) if isinstance(value, str) else value
        return found

    def to_json(self) -> dict[str, Any]:
        """The options as JSON."""
        return dataclasses.asdict(self)


def with_supported_paths(values: Mapping[str, Any], options: type[Options]) -> dict[str, Any]:
    """Values of options with the paths among them as `supported_path` gives them.

    Raises:
      InputError: see `supported_path`.
    """
    changed = dict(values)
    for name, value in values.items():
        rule = options_of(options)[name].rule
        if isinstance(rule, Paths):
            changed[name] = tuple(supported_path(path, flag=name) for path in value)
        elif isinstance(rule, Path) and value is not None and not rule.or_name:
            changed[name] = supported_path(value, flag=name)
    return changed


def _parser() -> OneLineParser:
    parser = OneLineParser(
        module="trainer.task",
        description="Trains a classifier on the embeddings of a record set and exports it as one SavedModel.",
    )
    of_data, of_run = options_of(DataOptions), options_of(TrainingOptions)
    add_flags(parser, of_data)
    add_flags(parser, options_of(OptionalRecipe))
    add_flags(parser, {name: described for name, described in of_run.items() if name not in of_data})
    return parser


def parse_options(argv: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> TrainingOptions:
    """Reads the command line. The default of a flag comes from the recipe, or else from the class.

    Args:
      argv: the arguments without the program's name; None for the arguments of the process.
      environ: the environment variables by which Vertex AI names the folders; flags override them.

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
        if given["max_steps"] is not None:  # The command line overrides the epochs of the recipe.
            values["epochs"] = None
    rules = {name: described.rule for name, described in options_of(TrainingOptions).items()}
    for field, rule in rules.items():
        if isinstance(rule, ListOfTexts) and given[field] is not None:
            given[field] = split_paths(given[field]) if isinstance(rule, Paths) else split_texts(given[field])
    values.update({field: environ[name] for field, name in _VERTEX_FOLDERS.items() if environ.get(name)})
    values.update({field: value for field, value in given.items() if value is not None})
    return TrainingOptions(**with_supported_paths(values, TrainingOptions))
