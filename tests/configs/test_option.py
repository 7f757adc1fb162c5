"""Every option says what it decides, and what is made from the options is what it was when each was made by hand."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import types
import typing
from typing import Any

import pytest

from cloud.deploy import DeploymentOptions
from cloud.doctor import DoctorOptions
from cloud.endpoint import EndpointOptions
from cloud.images_to_json import ImagesToJsonOptions
from cloud.options import CloudPlaceOptions, CloudRunOptions
from cloud.train import TrainingRunOptions
from configs.errors import InputError
from configs.option import (
    REQUIRED,
    Options,
    add_flags,
    definition_of,
    given_values,
    option,
    options_of,
    time_deciding,
)
from configs.recipe import BackboneOptions, OptionalRecipe, PreprocessOptions, RecipeChoice, TrainOptions
from configs.rules import Number, OneOf, Percent, Switch, Text, Whole
from configs.view_options import ViewOptions
from insight.audit import AuditOptions
from insight.drift import DriftOptions
from insight.map import MapOptions
from insight.next import NextOptions
from insight.options import PageOptions, SetOptions
from insight.relabel import RelabelOptions
from insight.search import SearchOptions
from insight.twins import TwinsOptions
from pipelines.answers.flags import AnswerOptions
from pipelines.bottlenecks.options import ImportOptions
from pipelines.checks.embed_flags import BatchOptions, JobOptions, PathOptions
from pipelines.plan import PlanOptions
from pipelines.planning.file import planned_options
from pipelines.preproc import PreprocOptions
from pipelines.recipe_lists import RecipeListOptions
from pipelines.why import WhyOptions
from preprocess.bake import BakeOptions
from preprocess.beam.image_source import ImageSource
from preprocess.classify import ClassifyOptions
from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.lists.labels import LabelDict
from serving.options import ServeOptions
from trainer.export_frozen import ExportFrozenOptions
from trainer.graph import GraphOptions
from trainer.options import DataOptions, ListOfTexts, Path, Paths, TrainingOptions
from trainer.predict import PredictOptions

OWNERS = (
    *(SetOptions, PageOptions, AuditOptions, DriftOptions, NextOptions, MapOptions, SearchOptions, TwinsOptions),
    RelabelOptions,
    *(BackboneOptions, ViewOptions, PreprocessOptions, PathOptions, BatchOptions, JobOptions),
    *(TrainOptions, DataOptions, TrainingOptions, PredictOptions, ExportFrozenOptions, ImportOptions, GraphOptions),
    *(
        RecipeChoice,
        OptionalRecipe,
        RecipeListOptions,
        PlanOptions,
        PreprocOptions,
        WhyOptions,
        BakeOptions,
        ClassifyOptions,
    ),
    *(CloudPlaceOptions, CloudRunOptions, TrainingRunOptions, DeploymentOptions, DoctorOptions),
    *(EndpointOptions, ImagesToJsonOptions, ServeOptions, AnswerOptions),
)
# What the definitions of jobs and checkpoints held when each was listed by hand.
OF_RECORDS = {
    "backbone": "inception_v3",
    "weights": "imagenet",
    "seed": 0,
    "engine": "auto",
    "precision": "auto",
    "compression": "none",
    "unknown_labels": "fail",
    "rows_per_shard": 1024,
}
OF_MODEL = {
    "hidden_units": 512,
    "dropout": 0.5,
    "learning_rate": 1e-3,
    "optimizer": "adam",
    "batch_size": 100,
    "eval_every_steps": 25,
    "early_stopping": 0,
    "class_weights": "none",
    "label_smoothing": 0.0,
    "l2": 0.0,
    "standardize": True,
    "seed": 0,
}


def subclasses(owner: type) -> set[type]:
    return {owner}.union(*(subclasses(each) for each in owner.__subclasses__()))


def training_options() -> TrainingOptions:
    return TrainingOptions(train_data_paths=("t",), eval_data_paths=("e",), output_path="o")


def test_all_classes_of_options_are_looked_at():
    ours = {owner for owner in subclasses(Options) if owner.__module__.split(".")[0] != "tests"}
    assert {owner for owner in ours if owner.__qualname__.isidentifier()} - {Options} == set(OWNERS)


@pytest.mark.parametrize("owner", OWNERS)
def test_every_field_says_what_it_decides(owner):
    described = options_of(owner)
    assert set(described) == {field.name for field in dataclasses.fields(owner)}
    assert all(each.decides in ("records", "model", "neither") and each.help for each in described.values())


def test_a_field_that_does_not_say_what_it_decides_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Forgotten(Options):
        told: int = option(1, Whole(0), help="x", decides="neither")
        untold: int = 3

    with pytest.raises(TypeError, match="the field untold is not made by"):
        options_of(Forgotten)
    with pytest.raises(TypeError, match="untold"):
        Forgotten()
    with pytest.raises(TypeError, match="decides"):
        option(1, Whole(0), help="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="records, model, neither, not 'nothing'"):
        option(1, Whole(0), help="x", decides="nothing")  # type: ignore[arg-type]


def job_options() -> JobOptions:
    return JobOptions(input_path=("gs://b/l.csv",), input_dict="d", output_path="o")


def job_definition(options: JobOptions) -> dict[str, Any]:
    from pipelines.embedding.preparation import _definition
    from preprocess.backbones.backbone import BackboneSpec

    lists = types.SimpleNamespace(paths=options.input_path, sha256=("abc",), formats=())
    return _definition(options, BackboneSpec.of_options(options), lists, LabelDict(("rose",)))  # type: ignore[arg-type]


def test_what_decides_the_records_is_in_the_definition_of_jobs():
    # Of existing jobs: another key or value would be another job, which goes on from nothing.
    assert list(definition_of(job_options(), "records").items()) == list(OF_RECORDS.items())
    assert job_definition(job_options()) == {
        "input_path": [["gs://b/l.csv", "abc"]],
        "input_dict": "dcdba7b8a1d58e700bae9423ec9a371c709ac99db0d394bf4fe359599182ca40",
        "image_definition": IMAGE_DEFINITION,
        **OF_RECORDS,
    }


def test_what_decides_the_model_is_in_the_definition_of_checkpoints():
    assert definition_of(training_options(), "model") == OF_MODEL


def test_a_plan_is_made_for_what_decides_the_time():
    decides = {"backbone": "inception_v3", "engine": "auto", "precision": "auto", "batch_size": 7}
    assert time_deciding(dataclasses.replace(job_options(), batch_size=7)) == decides
    # What pipelines.plan writes, which has no options of a job.
    assert planned_options(PreprocessOptions(), 7) == decides


def test_what_stands_for_an_option_in_a_definition_is_in_it():
    class Data:
        label_mode = "single"

        def __len__(self) -> int:
            return 7

        def digest(self) -> str:
            return "abc"

    from trainer.training.checkpoints import run_definition

    definition = run_definition(Data(), Data(), training_options())  # type: ignore[arg-type]
    assert set(definition) == {
        *OF_MODEL,
        "steps",
        "label_mode",
        "training_precision",
        "training data",
        "evaluation data",
    }
    definitions = {"model": definition, "records": job_definition(job_options()), "neither": {}}
    for owner in OWNERS:
        for name, described in options_of(owner).items():
            assert set(described.held_as) <= set(definitions[described.decides]), name


KINDS: dict[type, Any] = {Whole: int, Number: float, Percent: float, Text: str, Switch: bool}


@pytest.mark.parametrize("owner", OWNERS)
def test_rules_and_annotations_say_the_same(owner):
    annotations = typing.get_type_hints(owner)
    for name, described in options_of(owner).items():
        annotation = annotations[name]
        if described.default is None:
            assert type(None) in typing.get_args(annotation), name
            (annotation,) = (kind for kind in typing.get_args(annotation) if kind is not type(None))
        if isinstance(described.rule, OneOf):
            assert typing.get_args(annotation) == described.rule.names, name
        elif type(described.rule) in KINDS:
            assert annotation is KINDS[type(described.rule)], name
        if described.default not in (REQUIRED, None):
            assert described.rule.holds(described.default), name


def test_an_option_of_recipes_is_the_same_option_on_the_command_line():
    of_recipes = options_of(TrainOptions)
    assert {name: options_of(TrainingOptions)[name] for name in of_recipes} == of_recipes
    with pytest.raises(InputError) as of_recipe:
        TrainOptions(dropout=2)
    with pytest.raises(InputError) as of_flag:
        dataclasses.replace(training_options(), dropout=2)
    assert str(of_recipe.value) == "train.dropout must be a number from 0 to below 1. Received: 2."
    assert str(of_flag.value) == "--dropout must be a number from 0 to below 1. Received: 2."


@pytest.mark.parametrize(
    ("rule", "words", "good", "bad"),
    [
        (Whole(1), "a whole number of at least 1", [1, 10**30], [0, -1, 1.0, True, "1", None]),
        (Number(above=0), "a number above 0", [1, 0.1], [0, float("inf"), float("nan"), True, "1", 10**400]),
        (Number(above=0, at_most=1), "a number above 0 and at most 1", [1, 0.1], [0, 1.1]),
        (Number(at_least=0), "a number of at least 0", [0, 5.5], [-1e-9]),
        (Number(at_least=0, at_most=100), "a number from 0 to 100", [0, 100], [-1, 100.5]),
        (Number(at_least=0, unit="seconds"), "a number of seconds, at least 0", [0], [-1]),
        (OneOf(("a", "b")), "one of a, b", ["a"], ["c", None, ["a"], {}]),
        (Text(), "one line of text that is not empty", ["x"], ["", " ", "a\nb", "a\u2028b", 3, None]),
        (Switch(), "true or false", [True, False], [1, "yes", None]),
    ],
)
def test_rules(rule, words, good, bad):
    assert rule.words == words
    assert all(rule.holds(value) for value in good)
    assert not any(rule.holds(value) for value in bad)


def test_flags_are_made_from_options():
    parser = argparse.ArgumentParser()
    add_flags(parser, options_of(TrainingOptions))
    given = parser.parse_args(
        ["--output_path=o", "--dropout=0.25", "--optimizer=sgd", "--no-standardize", "--epochs=3"]
    )
    assert (given.dropout, given.optimizer, given.standardize, given.epochs) == (0.25, "sgd", False, 3)
    # What is not given is left to the recipe.
    assert given.hidden_units is None
    said = " ".join(parser.format_help().split())
    assert "width of the ReLU layer; 0 for no hidden layer, only a softmax (default: 512)" in said
    assert "statistics (default: yes)" in said
    assert "{adam,adamw,sgd,rmsprop}" in said


def test_programs_define_no_flag_by_hand():
    root = pathlib.Path(__file__).parents[2]
    by_hand = {
        str(path.relative_to(root))
        for package in ("cloud", "commands", "configs", "pipelines", "preprocess", "trainer")
        for path in (root / package).rglob("*.py")
        if ".add_argument(" in path.read_text()
    }
    assert {"configs/option.py"} <= by_hand <= {"configs/option.py", "pipelines/ingest.py"}


def test_a_value_without_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser, options_of(PredictOptions))
    given = given_values(parser.parse_args(["a.jpg", "--model_dir=m"]), PredictOptions)
    assert given == {"photos": ("a.jpg",), "model_dir": "m"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--model_dir=m"])


def test_every_path_of_the_trainer_says_whether_it_is_read_or_written():
    # A text that is neither a path nor one of a few names would be a path that says nothing of its use.
    for name, described in options_of(TrainingOptions).items():
        rule = described.rule
        if isinstance(rule, Text) or type(rule) is ListOfTexts:
            raise AssertionError(f"{name} may be a path: give it the rule Path or Paths")
    options = TrainingOptions(
        train_data_paths=("t1", "t2"),
        eval_data_paths=("e",),
        output_path="o",
        log_dir="l",
        checkpoint_dir="",
        photo_dirs=("p",),
        weights="w",
        input_dict="d",
    )
    assert options.paths_that_are("read") == {
        "train_data_paths": ("t1", "t2"),
        "eval_data_paths": ("e",),
        "input_dict": ("d",),
        "weights": ("w",),
    }
    assert options.paths_that_are("written") == {"output_path": ("o",), "log_dir": ("l",)}
    assert options.paths_that_are("allowed") == {"photo_dirs": ("p",)}
    uses = {
        name: each.rule.use for name, each in options_of(TrainingOptions).items() if isinstance(each.rule, Path | Paths)
    }
    assert {name for name, use in uses.items() if use == "written"} == {
        "output_path",
        "checkpoint_dir",
        "log_dir",
        "export_dir",
    }


def test_the_limits_of_images_are_those_that_the_readers_have_without_options():
    options, images = PreprocessOptions(), ImageSource()
    assert (images.max_bytes, images.max_pixels, images.deadline_sec, images.retry.limit_sec) == (
        options.max_image_bytes,
        options.max_image_pixels,
        options.image_deadline_sec,
        options.storage_retry_sec,
    )
