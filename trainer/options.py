"""The options of a training run: checked once, frozen, and written into its metrics."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from configs.arguments import OneLineParser
from configs.errors import InputError
from trainer.arguments import split_paths
from trainer.files import supported_path

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
CLASS_WEIGHTS = ("none", "balanced")
LABEL_MODES = ("auto", "single", "multi")
UNLABELED = ("drop", "default_class")
EXPORT_FORMATS = ("savedmodel", "litert", "onnx")
_LISTS_OF_PATHS = ("train_data_paths", "eval_data_paths", "test_data_paths", "photo_dirs")
_LISTS = (*_LISTS_OF_PATHS, "export_formats")
_PATHS = ("output_path", "checkpoint_dir", "log_dir", "export_dir", "input_dict", "model_dir")


# Which folders Vertex AI names in the environment of a training job.
_VERTEX_FOLDERS = {
    "checkpoint_dir": "AIP_CHECKPOINT_DIR",
    "log_dir": "AIP_TENSORBOARD_LOG_DIR",
    "export_dir": "AIP_MODEL_DIR",
}


def _require(rule: bool, field: str, words: str, value: object) -> None:
    if not rule:
        raise InputError(f"--{field} {words}. Received: {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run is told. The defaults of the head are those of the published flowers sample.

    Records, folders and dictionaries are local or gs://.

    Attributes:
      train_data_paths: shards, globs of shards or prefixes of record sets to train on. May be empty where an
        existing model is evaluated.
      eval_data_paths: the same, to choose the checkpoint and measure accuracy on.
      test_data_paths: the same, measured once at the very end; may be empty.
      output_path: folder of the checkpoints, logs, metrics and model.
      checkpoint_dir: of the checkpoints; None for `output_path`/checkpoints.
      log_dir: of the TensorBoard logs; None for `output_path`/logs.
      export_dir: where a copy of the exported model goes; None for no copy.
      input_dict: dict.txt of record sets that were made elsewhere and so have no manifest; else None.
      photo_dirs: folders, local or gs://. The photos that records name are read, for thumbnails and checks, only if
        they lie in one of them. Empty for wherever they lie, but not at all for records that were made elsewhere.
      weights: where the backbone's weights lie, if no longer where the record sets say; else None.
      hidden_units: width of the ReLU layer; 0 means none, so a straight softmax (or sigmoids).
      dropout: share of the inputs of the first dense layer that a training step drops, in [0, 1).
      learning_rate: of the optimizer.
      optimizer: the rule by which weights move; see `trainer.optimizers`.
      batch_size: examples a step.
      max_steps: steps of the optimizer, unless `epochs` is given.
      epochs: times that every training example is used; None for `max_steps`.
      eval_every_steps: steps between two evaluations, each a chance for the best checkpoint.
      early_stopping: training ends after so many evaluations in a row without a lower loss; 0 for never.
      class_weights: "balanced" makes every class weigh the same in training, however few examples it has.
      label_smoothing: share of each training target that goes to all classes equally, in [0, 1).
      l2: weight of the sum of the squared weights of the dense layers in the training loss; with adamw its
        weight decay. At least 0.
      label_mode: "single" (softmax, one right class) or "multi" (sigmoids, any number of right classes);
        "auto" for multi if a tenth of the training examples or more have several labels.
      unlabeled: "drop" leaves records without a label out, "default_class" makes a class of them.
      standardize: whether the head first centers and scales its inputs (see `trainer.head`).
      seed: of the initial weights, the order of examples and dropout.
      seeds: how many seeds to train with, to tell skill from luck; the first is the exported model's.
      tune: trials of a search for the head's settings; 0 for no search.
      tune_sec: seconds after which the search begins no more trials; None for no limit.
      learning_curve: whether to measure what more examples would bring.
      min_precision: what the answers above the model's score threshold are to reach, in (0, 1].
      write_predictions: whether to write predictions.csv. Without `train_data_paths`, or with `model_dir`, an
        existing model makes them, and nothing is trained.
      model_dir: the existing model; None for the one in `output_path`.
      export_formats: of "savedmodel", "litert" and "onnx"; always with "savedmodel".
      max_memory_mb: MiB of embeddings to hold in memory; sets beyond it are read from their shards in each
        epoch. None for half of the memory that is available.

    Raises:
      InputError: a value breaks its rule; the message names the flag and the value.
    """

    train_data_paths: tuple[str, ...]
    eval_data_paths: tuple[str, ...]
    output_path: str
    checkpoint_dir: str | None = None
    log_dir: str | None = None
    export_dir: str | None = None
    test_data_paths: tuple[str, ...] = ()
    input_dict: str | None = None
    photo_dirs: tuple[str, ...] = ()
    weights: str | None = None
    hidden_units: int = 512
    dropout: float = 0.5
    learning_rate: float = 1e-3
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    batch_size: int = 100
    max_steps: int = 1000
    epochs: int | None = None
    eval_every_steps: int = 25
    early_stopping: int = 0
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    l2: float = 0.0
    label_mode: Literal["auto", "single", "multi"] = "auto"
    unlabeled: Literal["drop", "default_class"] = "drop"
    standardize: bool = True
    seed: int = 0
    seeds: int = 1
    tune: int = 0
    tune_sec: float | None = None
    learning_curve: bool = False
    min_precision: float = 0.95
    write_predictions: bool = False
    model_dir: str | None = None
    export_formats: tuple[str, ...] = ("savedmodel",)
    max_memory_mb: int | None = None

    def __post_init__(self) -> None:
        self._check_data()
        self._check_head()
        self._check_run()

    def _check_data(self) -> None:
        if self.evaluates_only:
            _require(
                bool(self.eval_data_paths or self.test_data_paths),
                "eval_data_paths",
                "or --test_data_paths must name what the model is to be evaluated on",
                "",
            )
        else:
            _require(bool(self.train_data_paths), "train_data_paths", "must name at least one file or glob", "")
            _require(bool(self.eval_data_paths), "eval_data_paths", "must name at least one file or glob", "")
        _require(bool(self.output_path), "output_path", "must name a folder", self.output_path)
        for field in ("input_dict", "weights", "model_dir"):
            value = getattr(self, field)
            _require(value != "", field, "must name a file" if field != "model_dir" else "must name a folder", value)
        _require(
            self.model_dir is None or self.write_predictions,
            "model_dir",
            "names an existing model to evaluate, so it goes with --write_predictions",
            self.model_dir,
        )
        self._require_choice("label_mode", LABEL_MODES)
        self._require_choice("unlabeled", UNLABELED)
        self._require_whole("max_memory_mb", at_least=1, or_none=True)

    def _check_head(self) -> None:
        self._require_whole("hidden_units", at_least=0)
        _require(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1", self.dropout)
        _require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            "learning_rate",
            "must be a positive number",
            self.learning_rate,
        )
        self._require_choice("optimizer", OPTIMIZERS)
        self._require_choice("class_weights", CLASS_WEIGHTS)
        _require(
            0 <= self.label_smoothing < 1, "label_smoothing", "must be at least 0 and below 1", self.label_smoothing
        )
        _require(math.isfinite(self.l2) and self.l2 >= 0, "l2", "must be 0 or more", self.l2)

    def _check_run(self) -> None:
        self._require_whole("batch_size", at_least=1)
        self._require_whole("max_steps", at_least=1)
        self._require_whole("epochs", at_least=1, or_none=True)
        self._require_whole("eval_every_steps", at_least=1)
        self._require_whole("early_stopping", at_least=0)
        _require(0 <= self.seed < 2**31, "seed", "must be from 0 to 2147483647", self.seed)
        self._require_whole("seeds", at_least=1)
        self._require_whole("tune", at_least=0)
        _require(
            self.tune_sec is None or (math.isfinite(self.tune_sec) and self.tune_sec > 0),
            "tune_sec",
            "must be a positive number of seconds",
            self.tune_sec,
        )
        _require(0 < self.min_precision <= 1, "min_precision", "must be above 0 and at most 1", self.min_precision)
        _require(bool(self.export_formats), "export_formats", f"must name some of {', '.join(EXPORT_FORMATS)}", "")
        for name in self.export_formats:
            _require(name in EXPORT_FORMATS, "export_formats", f"must be of {', '.join(EXPORT_FORMATS)}", name)

    def _require_choice(self, field: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, field)
        _require(value in choices, field, f"must be one of {', '.join(choices)}", value)

    def _require_whole(self, field: str, *, at_least: int, or_none: bool = False) -> None:
        value = getattr(self, field)
        _require((or_none and value is None) or value >= at_least, field, f"must be {at_least} or more", value)

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
    default = {field.name: field.default for field in dataclasses.fields(TrainingOptions)}

    def add(name: str, kind: type, words: str, **more: Any) -> None:
        parser.add_argument(f"--{name}", type=kind, help=f"{words} (default: {default[name]})", **more)

    def add_choice(name: str, choices: Sequence[str], words: str) -> None:
        add(name, str, words, choices=choices)

    def add_switch(name: str, words: str) -> None:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=words)

    paths: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": "PATH"}
    parser.add_argument(
        "--train_data_paths",
        **paths,
        help="shards, globs ('out/preproc/train*') or set prefixes to train on; repeat or separate by commas",
    )
    parser.add_argument("--eval_data_paths", **paths, help="the same, to evaluate on")
    parser.add_argument("--test_data_paths", **paths, help="the same, evaluated once at the end (default: none)")
    parser.add_argument("--output_path", required=True, help="folder for checkpoints, logs, metrics.json and the model")
    parser.add_argument(
        "--checkpoint_dir", metavar="DIR", help="of the checkpoints (default: AIP_CHECKPOINT_DIR, else in output_path)"
    )
    parser.add_argument(
        "--log_dir", metavar="DIR", help="of TensorBoard (default: AIP_TENSORBOARD_LOG_DIR, else in output_path)"
    )
    parser.add_argument(
        "--export_dir", metavar="DIR", help="where a copy of the model goes (default: AIP_MODEL_DIR, else none)"
    )
    parser.add_argument("--recipe", help="name or file of a recipe that gives defaults of the flags below")
    parser.add_argument("--input_dict", metavar="FILE", help="dict.txt of records that were made elsewhere")
    parser.add_argument(
        "--photo_dirs",
        action="extend",
        nargs="+",
        metavar="DIR",
        help="photos that records name are read, for thumbnails and checks, only in these folders (default: wherever "
        "they lie; none for records that were made elsewhere)",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's weights file, if it moved since the records were made"
    )
    parser.add_argument(
        "--max_memory_mb",
        type=int,
        metavar="MB",
        help="MiB of embeddings to hold in memory; more is streamed (default: half of the available memory)",
    )

    add_choice(
        "label_mode",
        LABEL_MODES,
        "single: softmax, one right class; multi: sigmoids, any number; auto: multi if a tenth of the "
        "training examples have several labels, else single, with the labels of a row in equal parts",
    )
    add_choice("unlabeled", UNLABELED, "records without a label: left out, or a class of their own named 'unlabeled'")
    add("hidden_units", int, "width of the ReLU layer; 0 for a straight softmax")
    add("dropout", float, "dropout before the first dense layer")
    add_choice("optimizer", OPTIMIZERS, "how weights move; sgd has a momentum of 0.9")
    add("learning_rate", float, "learning rate of the optimizer")
    add("batch_size", int, "examples a step")
    parser.add_argument(
        "--max_steps", type=int, help=f"training steps; not with --epochs (default: {default['max_steps']})"
    )
    parser.add_argument("--epochs", type=int, help="times that every training example is used, instead of --max_steps")
    add("eval_every_steps", int, "steps between evaluations")
    add("early_stopping", int, "evaluations without a lower loss after which training ends; 0 for never")
    add_choice("class_weights", CLASS_WEIGHTS, "balanced: every class weighs the same in training")
    add("label_smoothing", float, "share of a training target that goes to all classes equally")
    add("l2", float, "weight of the squared weights in the training loss; with adamw its weight decay")
    add("seed", int, "the same seed gives the same model")
    add_switch("standardize", "center and scale the embeddings by the training set's statistics (default: yes)")

    add("tune", int, "trials of a search for the head's settings by cross-validation; 0 for none")
    parser.add_argument(
        "--tune_sec", type=float, metavar="SEC", help="seconds after which --tune begins no more trials"
    )
    add("seeds", int, "seeds to train with, to report mean and spread")
    add_switch("learning_curve", "measure what more examples would bring (default: no)")
    add("min_precision", float, "share of right answers that the model's score threshold is chosen for")
    add_switch(
        "write_predictions",
        "write predictions.csv; without --train_data_paths, of an existing model (default: no)",
    )
    parser.add_argument(
        "--model_dir", metavar="DIR", help="the model that --write_predictions evaluates (default: OUTPUT_PATH/model)"
    )
    parser.add_argument(
        "--export_formats",
        action="extend",
        nargs="+",
        metavar="FORMAT",
        help="of savedmodel, litert and onnx; repeat or separate by commas (default: savedmodel)",
    )
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
        from configs.recipe import load_recipe

        values.update(dataclasses.asdict(load_recipe(recipe_name).train))
        if given["max_steps"] is not None:  # What is said on the command line wins over the recipe's epochs.
            values["epochs"] = None
    for field in _LISTS:
        if given[field] is not None or not field.startswith("export"):
            given[field] = split_paths(given[field])
    values.update({field: environ[name] for field, name in _VERTEX_FOLDERS.items() if environ.get(name)})
    values.update({field: value for field, value in given.items() if value is not None})
    for field in _PATHS:
        if values.get(field) is not None:
            values[field] = supported_path(values[field], flag=field)
    for field in _LISTS_OF_PATHS:
        if field in values:
            values[field] = tuple(supported_path(path, flag=field) for path in values[field])
    return TrainingOptions(**values)
