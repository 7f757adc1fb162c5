"""Recipes: one YAML file for each data set, read into frozen dataclasses that check every field.

A recipe says where the lists of a data set lie, which options its records and its model are made with, and on which
machines of the cloud if not here.
Every field has a default, so a recipe names only what differs. A key that no recipe has, a key written
twice, a wrong type and a value out of range are errors that name the file, the line, the field and the value.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import re
from typing import Any, ClassVar, Literal

from configs.cloud import CloudOptions, DataflowOptions, DeployOptions, VertexOptions
from configs.errors import InputError, did_you_mean
from configs.section import FieldError, Section
from configs.yaml_mapping import located, parse_mapping, read_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_YAML_SUFFIXES = (".yaml", ".yml")
_NO_RECIPES = ("prices.yaml",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists(Section):
    """Where the lists of the data set lie: relative to its directory or bucket, or absolute.

    Attributes:
      dict: the labels, one a line.
      train: rows `image_uri,label[,label…]` to train on.
      eval: such rows to evaluate on while training.
      test: such rows for the final measurement; None if the data set has no such list.
    """

    prefix: ClassVar[str] = "lists."

    dict: str = "dict.txt"
    train: str = "train.csv"
    eval: str = "eval.csv"
    test: str | None = "test.csv"

    def __post_init__(self) -> None:
        self._check_text("dict", "train", "eval")
        if self.test is not None:
            self._check_text("test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessOptions(Section):
    """How lists become records: the defaults of the flags of `pipelines.embed`.

    Attributes:
      backbone: name of the network; the pipeline knows which there are.
      weights: "imagenet", "random", or the path of a weights file.
      seed: of random weights; at least 0.
      engine: what runs the network.
      precision: of the network's arithmetic.
      compression: of the shards.
      unknown_labels: what happens to a row with a label that the dictionary lacks.
      rows_per_shard: rows in one output shard, at least 1.
      max_image_bytes: a larger image file fails, at least 1.
      max_image_pixels: an image of more pixels, by its header, fails, at least 1.
      image_deadline_sec: an image that takes longer to read, or to decode, fails; above 0.
      max_failed_percent: the job fails if a larger share of its images does, from 0 to 100.
      storage_retry_sec: how long faults of remote storage that may pass are tried again, at least 0.
    """

    prefix: ClassVar[str] = "preprocess."

    backbone: str = "inception_v3"
    weights: str = "imagenet"
    seed: int = 0
    engine: Literal["auto", "tensorflow", "openvino"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    compression: Literal["none", "gzip"] = "none"
    unknown_labels: Literal["fail", "skip", "unlabeled"] = "fail"
    rows_per_shard: int = 1024
    max_image_bytes: int = 256 * 1024 * 1024
    max_image_pixels: int = 120_000_000
    image_deadline_sec: float = 60
    max_failed_percent: float = 10
    storage_retry_sec: float = 120

    def __post_init__(self) -> None:
        self._check_text("backbone", "weights")
        self._check_int("seed", minimum=0)
        self._check_choice("engine", ("auto", "tensorflow", "openvino"))
        self._check_choice("precision", ("auto", "float32", "bfloat16", "int8"))
        self._check_choice("compression", ("none", "gzip"))
        self._check_choice("unknown_labels", ("fail", "skip", "unlabeled"))
        self._check_int("rows_per_shard", minimum=1)
        self._check_int("max_image_bytes", minimum=1)
        self._check_int("max_image_pixels", minimum=1)
        if not self._is_finite_number("image_deadline_sec") or self.image_deadline_sec <= 0:
            self._fail("image_deadline_sec", "a number of seconds above 0")
        if not self._is_finite_number("max_failed_percent") or not 0 <= self.max_failed_percent <= 100:
            self._fail("max_failed_percent", "a number from 0 to 100")
        if not self._is_finite_number("storage_retry_sec") or self.storage_retry_sec < 0:
            self._fail("storage_retry_sec", "a number of seconds, at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(Section):
    """How records become a model: the defaults of the flags of `trainer.task`.

    Attributes:
      hidden_units: width of the ReLU layer; 0 for none, so a straight softmax.
      dropout: share of its inputs dropped in training, from 0 to below 1.
      learning_rate: of the optimizer, above 0.
      optimizer: the rule by which weights move.
      batch_size: examples in one step, at least 1.
      max_steps: steps of training, at least 1; epochs, if given, take its place.
      epochs: times that every example is used, at least 1; None for max_steps.
      early_stopping: evaluations without a lower loss after which training ends, at least 0; 0 for never.
      class_weights: whether every class weighs the same in training.
      label_smoothing: share of a training target that goes to all classes equally, from 0 to below 1.
      l2: weight of the squared weights in the training loss, at least 0.
      label_mode: one right class, or any number; "auto" for what the training set shows.
      unlabeled: what happens to records without a label.
      seed: of initial weights, shuffling and dropout; at least 0.
    """

    prefix: ClassVar[str] = "train."

    hidden_units: int = 512
    dropout: float = 0.5
    learning_rate: float = 0.001
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    batch_size: int = 100
    max_steps: int = 1000
    epochs: int | None = None
    early_stopping: int = 0
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    l2: float = 0.0
    label_mode: Literal["auto", "single", "multi"] = "auto"
    unlabeled: Literal["drop", "default_class"] = "drop"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_int("hidden_units", minimum=0)
        if not self._is_finite_number("dropout") or not 0 <= self.dropout < 1:
            self._fail("dropout", "a number from 0 to below 1")
        if not self._is_finite_number("learning_rate") or self.learning_rate <= 0:
            self._fail("learning_rate", "a number above 0")
        self._check_choice("optimizer", ("adam", "adamw", "sgd", "rmsprop"))
        self._check_int("batch_size", minimum=1)
        self._check_int("max_steps", minimum=1)
        if self.epochs is not None:
            self._check_int("epochs", minimum=1)
        self._check_int("early_stopping", minimum=0)
        self._check_choice("class_weights", ("none", "balanced"))
        if not self._is_finite_number("label_smoothing") or not 0 <= self.label_smoothing < 1:
            self._fail("label_smoothing", "a number from 0 to below 1")
        if not self._is_finite_number("l2") or self.l2 < 0:
            self._fail("l2", "a number of at least 0")
        self._check_choice("label_mode", ("auto", "single", "multi"))
        self._check_choice("unlabeled", ("drop", "default_class"))
        self._check_int("seed", minimum=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A data set and the options that its records and its model are made with.

    Attributes:
      name: of the recipe. Job directories are named after it: letters, digits, ".", "_" and "-".
      lists: where its lists lie.
      preprocess: how lists become records.
      train: how records become a model.
      cloud: where jobs run that are not run here.
      dataflow: the machines that embed there.
      vertex: the machines that train there.
      deploy: what answers requests there.
    """

    name: str
    lists: Lists = dataclasses.field(default_factory=Lists)
    preprocess: PreprocessOptions = dataclasses.field(default_factory=PreprocessOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    cloud: CloudOptions = dataclasses.field(default_factory=CloudOptions)
    dataflow: DataflowOptions = dataclasses.field(default_factory=DataflowOptions)
    vertex: VertexOptions = dataclasses.field(default_factory=VertexOptions)
    deploy: DeployOptions = dataclasses.field(default_factory=DeployOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            self._fail("name", 'letters, digits, ".", "_" and "-", the first a letter or digit')


_SECTIONS: dict[str, Any] = {
    "lists": Lists,
    "preprocess": PreprocessOptions,
    "train": TrainOptions,
    "cloud": CloudOptions,
    "dataflow": DataflowOptions,
    "vertex": VertexOptions,
    "deploy": DeployOptions,
}


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the project, sorted."""
    names = (entry.name for entry in importlib.resources.files("configs").iterdir())
    return tuple(
        sorted(os.path.splitext(name)[0] for name in names if name.endswith(".yaml") and name not in _NO_RECIPES)
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe of the project by its name ("hugs"), or any recipe by the path of its file.

    What ends in .yaml or .yml or has a "/" in it is a path; everything else is a name.

    Raises:
      InputError: there is no such recipe, or something in it is wrong.
    """
    if name_or_path.endswith(_YAML_SUFFIXES) or os.sep in name_or_path:
        try:
            raw = read_yaml(name_or_path)
        except OSError as error:
            raise InputError(
                f"recipe {name_or_path}: cannot be read ({error.strerror}). Give the path of a YAML file, "
                f"or the name of a recipe that comes with the project: {', '.join(recipe_names())}."
            ) from error
        stem = os.path.splitext(os.path.basename(name_or_path))[0]
        return parse_recipe(raw, where=name_or_path, default_name=stem)
    if name_or_path not in recipe_names():
        raise InputError(
            f"recipe {name_or_path!r}: there is none of this name; there are {', '.join(recipe_names())}."
            f"{did_you_mean(name_or_path, recipe_names())} Give your own recipe by its path, ending in .yaml."
        )
    raw = importlib.resources.files("configs").joinpath(f"{name_or_path}.yaml").read_bytes()
    return parse_recipe(raw, where=f"configs/{name_or_path}.yaml", default_name=name_or_path)


def parse_recipe(raw: bytes, *, where: str, default_name: str) -> Recipe:
    """Reads a recipe from the bytes of its YAML.

    Args:
      raw: UTF-8 YAML.
      where: names the file in messages.
      default_name: the recipe's name if the YAML has no `name`.

    Raises:
      InputError: not YAML, or not a valid recipe.
    """
    data, lines = parse_mapping(raw, where=where, what="a recipe is a mapping of fields such as `name: hugs`")
    with located(where, lines):
        _check_keys(data, Recipe, prefix="")
        fields: dict[str, Any] = {"name": data.get("name", default_name)}
        for key, section in _SECTIONS.items():
            values = data.get(key)
            if values is None:  # absent, or all of its fields are commented out
                continue
            if not isinstance(values, dict):
                raise FieldError(key, f"must be a section with fields of its own. Received: {values!r}.")
            _check_keys(values, section, prefix=f"{key}.")
            fields[key] = section(**values)
        return Recipe(**fields)


def _check_keys(values: dict[Any, Any], section: type[Any], *, prefix: str) -> None:
    known = [field.name for field in dataclasses.fields(section)]
    for key in values:
        if key not in known:
            raise FieldError(
                f"{prefix}{key}",
                f"is not a field of a recipe; known here: {', '.join(known)}.{did_you_mean(str(key), known)}",
            )
