"""The options of a training run: checked once, frozen, and written into its metrics."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from configs.arguments import OneLineParser
from configs.errors import InputError
from trainer.arguments import split_paths

_TRAIN_FIELDS = ("hidden_units", "dropout", "learning_rate", "batch_size", "max_steps", "seed")


def _require(rule: bool, field: str, words: str, value: object) -> None:
    if not rule:
        raise InputError(f"--{field} {words}. Received: {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run is told. The defaults of the head are those of the published flowers sample.

    Attributes:
      train_data_paths: shards, globs of shards or prefixes of record sets to train on.
      eval_data_paths: the same, to choose the checkpoint and measure accuracy on.
      test_data_paths: the same, measured once at the very end; may be empty.
      output_path: folder of the checkpoints, logs, metrics and model.
      weights: where the backbone's weights lie, if no longer where the record sets say; else None.
      hidden_units: width of the ReLU layer; 0 means none, so a straight softmax.
      dropout: share of the inputs of the first dense layer that a training step drops, in [0, 1).
      learning_rate: of Adam.
      batch_size: examples a step.
      max_steps: steps of the optimizer.
      eval_every_steps: steps between two evaluations, each a chance for the best checkpoint.
      standardize: whether the head first centres and scales its inputs (see `trainer.head`).
      seed: of the initial weights, the order of examples and dropout.
      max_memory_mb: MiB of embeddings to hold in memory; sets beyond it are read from their shards in each
        epoch. None for half of the memory that is available.

    Raises:
      InputError: a value breaks its rule; the message names the flag and the value.
    """

    train_data_paths: tuple[str, ...]
    eval_data_paths: tuple[str, ...]
    output_path: str
    test_data_paths: tuple[str, ...] = ()
    weights: str | None = None
    hidden_units: int = 512
    dropout: float = 0.5
    learning_rate: float = 1e-3
    batch_size: int = 100
    max_steps: int = 1000
    eval_every_steps: int = 25
    standardize: bool = True
    seed: int = 0
    max_memory_mb: int | None = None

    def __post_init__(self) -> None:
        _require(bool(self.train_data_paths), "train_data_paths", "must name at least one file or glob", "")
        _require(bool(self.eval_data_paths), "eval_data_paths", "must name at least one file or glob", "")
        _require(bool(self.output_path), "output_path", "must name a folder", self.output_path)
        _require(self.weights != "", "weights", "must name a weights file", self.weights)
        _require(self.hidden_units >= 0, "hidden_units", "must be 0 or more", self.hidden_units)
        _require(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1", self.dropout)
        _require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            "learning_rate",
            "must be a positive number",
            self.learning_rate,
        )
        _require(self.batch_size >= 1, "batch_size", "must be 1 or more", self.batch_size)
        _require(self.max_steps >= 1, "max_steps", "must be 1 or more", self.max_steps)
        _require(self.eval_every_steps >= 1, "eval_every_steps", "must be 1 or more", self.eval_every_steps)
        _require(0 <= self.seed < 2**31, "seed", "must be from 0 to 2147483647", self.seed)
        _require(
            self.max_memory_mb is None or self.max_memory_mb >= 1,
            "max_memory_mb",
            "must be 1 or more",
            self.max_memory_mb,
        )

    def to_json(self) -> dict[str, Any]:
        """The options as JSON."""
        return dataclasses.asdict(self)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m trainer.task",
        description="Trains a classifier on the embeddings of a record set and exports it as one SavedModel.",
    )
    paths: dict[str, Any] = {"action": "extend", "nargs": "+", "metavar": "PATH"}
    parser.add_argument(
        "--train_data_paths",
        **paths,
        required=True,
        help="shards, globs ('out/preproc/train*') or set prefixes to train on; repeat or separate by commas",
    )
    parser.add_argument("--eval_data_paths", **paths, required=True, help="the same, to evaluate on")
    parser.add_argument("--test_data_paths", **paths, help="the same, evaluated once at the end (default: none)")
    parser.add_argument("--output_path", required=True, help="folder for checkpoints, logs, metrics.json and the model")
    parser.add_argument("--recipe", help="name or file of a recipe that gives defaults of the flags below")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="the backbone's weights file, if it moved since the records were made",
    )
    default = {field.name: field.default for field in dataclasses.fields(TrainingOptions)}

    def add(name: str, kind: type, words: str) -> None:
        parser.add_argument(f"--{name}", type=kind, help=f"{words} (default: {default[name]})")

    add("hidden_units", int, "width of the ReLU layer; 0 for a straight softmax")
    add("dropout", float, "dropout before the first dense layer")
    add("learning_rate", float, "learning rate of Adam")
    add("batch_size", int, "examples a step")
    add("max_steps", int, "training steps")
    add("eval_every_steps", int, "steps between evaluations")
    add("seed", int, "the same seed gives the same model")
    parser.add_argument(
        "--max_memory_mb",
        type=int,
        metavar="MB",
        help="MiB of embeddings to hold in memory; more is streamed (default: half of the available memory)",
    )
    parser.add_argument(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="centre and scale the embeddings by the training set's statistics (default: yes)",
    )
    return parser


def parse_options(argv: Sequence[str] | None) -> TrainingOptions:
    """Reads the command line; where a flag is absent, its default is the recipe's, else the class's.

    Args:
      argv: the arguments without the program's name; None for those of the process.

    Raises:
      InputError: a flag is unknown, missing or breaks its rule, or the recipe cannot be read.
    """
    given = vars(_parser().parse_args(argv))
    values: dict[str, Any] = {}
    recipe_name = given.pop("recipe")
    if recipe_name is not None:
        from configs.recipe import load_recipe

        train = load_recipe(recipe_name).train
        values.update({field: getattr(train, field) for field in _TRAIN_FIELDS})
    for field in ("train_data_paths", "eval_data_paths", "test_data_paths"):
        given[field] = split_paths(given[field])
    values.update({field: value for field, value in given.items() if value is not None})
    return TrainingOptions(**values)
