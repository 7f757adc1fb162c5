"""Recipes: one YAML file for each data set, read into frozen dataclasses that check every field.

A recipe says where the lists of a data set are, with which options its records and its model are made, and which
machines of the cloud are used. Every field has a default, so a recipe names only what differs. These are errors: an
unknown key, a key that is written twice, a wrong type, a value out of range. The message names the file, the line, the
field and the value.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import re
from typing import Any, ClassVar

from configs.choices import (
    ClassWeights,
    Compression,
    EngineName,
    OptimizerName,
    PrecisionName,
    RequestedLabelMode,
    TrainingPrecisionName,
    UnknownLabels,
    Unlabeled,
)
from configs.cloud import CloudOptions, DataflowOptions, DeployOptions, VertexOptions
from configs.errors import InputError, did_you_mean
from configs.file_uris import path_argument
from configs.list_names import DICT_NAME
from configs.option import Options, option, options_of, same_option
from configs.page import PageOptions
from configs.rules import HeaderText, Number, OneOf, PathText, Text, Whole
from configs.section import FieldError, Section
from configs.view_options import ViewOptions
from configs.yaml_mapping import located, parse_mapping, read_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_YAML_SUFFIXES = (".yaml", ".yml")
_NO_RECIPES = ("prices.yaml",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists(Section):
    """The paths of the lists of the data set: relative to its directory or bucket, or absolute.

    Attributes:
      dict: the path of dict.txt, which has one label on each line.
      train: the list to train on, with rows `image_uri,label[,label…]`.
      eval: the list to evaluate on during training.
      test: the list for the final measurement; None if the data set has no such list.
    """

    prefix: ClassVar[str] = "lists."

    dict: str = DICT_NAME
    train: str = "train.csv"
    eval: str = "eval.csv"
    test: str | None = "test.csv"

    def __post_init__(self) -> None:
        self._check_text("dict", "train", "eval")
        if self.test is not None:
            self._check_text("test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneOptions(Options):
    """The options that name a network: its architecture and its weights."""

    prefix: ClassVar[str] = "preprocess."

    backbone: str = option(
        "inception_v3",
        PathText(anything=False),
        help="network that makes the embeddings: a name that `hugs backbones` lists, or the path of a frozen graph, of "
        "the folder of a SavedModel or TF Hub module, or of a .keras file",
        decides="records",
        decides_time=True,
        metavar="NAME|PATH",
    )
    weights: str = option(
        "imagenet",
        PathText(anything=False),
        help="imagenet, random (for trying things out; see --seed), or a weights file of Keras or, for "
        "EfficientNet-Lite, of PyTorch",
        decides="records",
        metavar="imagenet|random|PATH",
    )
    input_tensor: str | None = option(
        None,
        Text(),
        help="of a --backbone PATH: the tensor that takes the pixels",
        decides="records",
        held_as=("backbone",),
        metavar="NAME",
        default_words="its only input",
    )
    output_tensor: str | None = option(
        None,
        Text(),
        help="of a --backbone PATH: the tensor that holds the embeddings; of a .keras file the layer",
        decides="records",
        held_as=("backbone",),
        metavar="NAME",
        default_words="its only output",
    )
    image_size: int | None = option(
        None,
        Whole(8),
        help="of a --backbone PATH: the side of the images that it takes",
        decides="records",
        held_as=("image_definition",),
        metavar="PIXELS",
        default_words="what the file says",
    )
    scaling: str | None = option(
        None,
        Text(),
        help="of a --backbone PATH: how it wants pixels: tf (-1 to 1), unit (0 to 1), none (0 to 255), torch, caffe, "
        "or MEAN,STD",
        decides="records",
        held_as=("image_definition",),
        metavar="NAME|MEAN,STD",
        default_words="what is known of the file",
    )
    seed: int = option(0, Whole(0), help="seed of random weights", decides="records")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessOptions(ViewOptions, BackboneOptions):
    """How lists become records: the options of `pipelines.embed` that a recipe has.

    The limits decide which images fail, but they do not decide any record. A failed image has no record, and its row
    can be tried again.
    """

    backbone: str = same_option(
        BackboneOptions,
        "backbone",
        help=f"{options_of(BackboneOptions)['backbone'].help}. Several, with commas between them, make a set each, "
        "from one read and one decode of each image",
        metavar="NAME|PATH[,...]",
    )
    engine: EngineName = option(
        "auto",
        OneOf.of(EngineName),
        help="the library that runs the network",
        decides="records",
        decides_time=True,
        default_words="auto, the fastest that is installed",
    )
    precision: PrecisionName = option(
        "auto",
        OneOf.of(PrecisionName),
        help="precision of the network's arithmetic: auto takes bfloat16 if it is faster and agrees with float32; int8 "
        "is calibrated on a sample of the list",
        decides="records",
        decides_time=True,
    )
    compression: Compression = option(
        "none", OneOf.of(Compression), help="compression of the records", decides="records"
    )
    unknown_labels: UnknownLabels = option(
        "fail",
        OneOf.of(UnknownLabels),
        help="if a label is not in dict.txt: stop before the start (fail), skip the row, or drop the label (unlabeled)",
        decides="records",
    )
    rows_per_shard: int = option(1024, Whole(1), help="rows of the list in a shard", decides="records", metavar="N")
    max_image_bytes: int = option(
        256 * 1024 * 1024,
        Whole(1),
        help="an image fails if its file has more bytes",
        decides="neither",
        metavar="N",
        default_words="256 MiB",
    )
    max_image_pixels: int = option(
        120_000_000,
        Whole(1),
        help="an image fails if its header declares more pixels",
        decides="neither",
        metavar="N",
        default_words="120 million",
    )
    image_deadline_sec: float = option(
        60,
        Number(above=0, unit="seconds"),
        help="an image fails if reading or decoding it takes longer",
        decides="neither",
        metavar="SEC",
    )
    max_failed_percent: float = option(
        10,
        Number(at_least=0, at_most=100),
        help="the job fails if a larger share of the images fails",
        decides="neither",
        metavar="PERCENT",
    )
    storage_retry_sec: float = option(
        120,
        Number(at_least=0, unit="seconds"),
        help="how long temporary faults of remote storage are tried again",
        decides="neither",
        metavar="SEC",
    )
    connections_per_host: int = option(
        8, Whole(1), help="http(s):// images that a process reads from one host at once", decides="neither", metavar="N"
    )
    web_contact: str | None = option(
        None,
        HeaderText(),
        help="address or page of yours that the hosts of http(s):// images see (some, like Wikimedia, ask for it)",
        decides="neither",
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "int8" and self.random_brightness:
            raise FieldError(
                f"{self.prefix}random_brightness",
                f"makes pixels brighter than 255, which int8 cuts off. Choose another {self.prefix}precision, or leave "
                "one of the two out.",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """How records become a model: the options of `trainer.task` that a recipe has.

    The defaults of the head are those of the published flowers sample.
    """

    prefix: ClassVar[str] = "train."

    label_mode: RequestedLabelMode = option(
        "auto",
        OneOf.of(RequestedLabelMode),
        help="single: softmax, one right class; multi: sigmoids, any number; auto: multi if a tenth of the training "
        "examples have several labels, else single, with the labels of a row in equal parts",
        decides="model",
        held_as=("label_mode",),
    )
    unlabeled: Unlabeled = option(
        "drop",
        OneOf.of(Unlabeled),
        help="records without a label: leave them out (drop), or give them a class named 'unlabeled' (default_class)",
        decides="model",
        held_as=("training data", "evaluation data"),
    )
    hidden_units: int = option(
        512, Whole(0), help="width of the ReLU layer; 0 for no hidden layer, only a softmax", decides="model"
    )
    dropout: float = option(
        0.5, Number(at_least=0, below=1), help="dropout before the first dense layer", decides="model"
    )
    optimizer: OptimizerName = option(
        "adam",
        OneOf.of(OptimizerName),
        help="rule by which training changes the weights; sgd has a momentum of 0.9",
        decides="model",
    )
    training_precision: TrainingPrecisionName = option(
        "auto",
        OneOf.of(TrainingPrecisionName),
        help="precision of the ReLU layer's matrix products in training: auto takes bfloat16 if the processor has it "
        "(AVX512-BF16, AMX) and the embeddings are standardized, else float32; the model itself is always float32",
        decides="model",
        held_as=("training_precision",),
    )
    learning_rate: float = option(0.001, Number(above=0), help="learning rate of the optimizer", decides="model")
    batch_size: int = option(100, Whole(1), help="examples in a training step", decides="model")
    max_steps: int = option(
        1000, Whole(1), help="training steps; not with --epochs", decides="model", held_as=("steps",)
    )
    epochs: int | None = option(
        None,
        Whole(1),
        help="how many times every training example is used, instead of --max_steps",
        decides="model",
        held_as=("steps",),
    )
    early_stopping: int = option(
        0,
        Whole(0),
        help="training ends after this many evaluations without a lower loss; 0 for never",
        decides="model",
    )
    class_weights: ClassWeights = option(
        "none", OneOf.of(ClassWeights), help="balanced: every class weighs the same in training", decides="model"
    )
    label_smoothing: float = option(
        0.0,
        Number(at_least=0, below=1),
        help="share of a training target that goes to all classes equally",
        decides="model",
    )
    l2: float = option(
        0.0,
        Number(at_least=0),
        help="weight of the squared weights in the training loss; with adamw its weight decay",
        decides="model",
    )
    seed: int = option(0, Whole(0), help="the same seed gives the same model", decides="model")
    # It decides whether the model is exported, and not which model it is.
    assert_accuracy_at_least: float | None = option(
        None,
        Number(at_least=0, at_most=1),
        help="export the model only if its accuracy (the lower bound of the 95 percent interval) is at least this, on "
        "the test set if there is one, else on the evaluation set; otherwise an older model stays, and the exit code "
        "is 2",
        decides="neither",
        metavar="SHARE",
        default_words="none",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A data set, and the options with which its records and its model are made.

    Attributes:
      name: the name of the recipe: letters, digits, ".", "_" and "-". Job directories are named after it.
      lists: the paths of its lists.
      preprocess: how lists become records.
      train: how records become a model.
      cloud: the project, the region and the account of jobs in the cloud.
      dataflow: the machines in the cloud that embed.
      vertex: the machines in the cloud that train.
      deploy: the machines in the cloud that answer requests.
      page: the texts and colours of the web page that shows answers.
    """

    name: str
    lists: Lists = dataclasses.field(default_factory=Lists)
    preprocess: PreprocessOptions = dataclasses.field(default_factory=PreprocessOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    cloud: CloudOptions = dataclasses.field(default_factory=CloudOptions)
    dataflow: DataflowOptions = dataclasses.field(default_factory=DataflowOptions)
    vertex: VertexOptions = dataclasses.field(default_factory=VertexOptions)
    deploy: DeployOptions = dataclasses.field(default_factory=DeployOptions)
    page: PageOptions = dataclasses.field(default_factory=PageOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            self._fail("name", 'letters, digits, ".", "_" and "-", the first a letter or digit')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeChoice(Options):
    """The option of programs that work with one recipe."""

    prefix: ClassVar[str] = "--"

    recipe: str = option(
        "hugs",
        Text(anything=True),
        help="name of a recipe, or path of its YAML file",
        decides="neither",
        metavar="NAME|FILE",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionalRecipe(Options):
    """The option of programs that work without a recipe, too."""

    prefix: ClassVar[str] = "--"

    # The options that the recipe sets say themselves what they decide.
    recipe: str | None = option(
        None,
        Text(anything=True),
        help="name or file of a recipe, which gives the defaults of the flags below",
        decides="neither",
        metavar="NAME|FILE",
    )


_SECTIONS: dict[str, Any] = {
    "lists": Lists,
    "preprocess": PreprocessOptions,
    "train": TrainOptions,
    "cloud": CloudOptions,
    "dataflow": DataflowOptions,
    "vertex": VertexOptions,
    "deploy": DeployOptions,
    "page": PageOptions,
}


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the project, sorted."""
    names = (entry.name for entry in importlib.resources.files("configs").iterdir())
    return tuple(
        sorted(os.path.splitext(name)[0] for name in names if name.endswith(".yaml") and name not in _NO_RECIPES)
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe of the project by its name ("hugs"), or any recipe by the path of its file.

    What ends in .yaml or .yml or has a "/" in it is a path, which may be a `file://` URI; everything else is a name.

    Raises:
      InputError: there is no such recipe, or it has an error.
    """
    name_or_path = path_argument(name_or_path)
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
      where: the name of the file, for messages.
      default_name: the recipe's name if the YAML has no `name`.

    Raises:
      InputError: the bytes are not YAML, or not a valid recipe.
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
