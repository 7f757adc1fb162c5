"""Whatever a recipe holds: a `Recipe` whose every field keeps its rule, or one line that says what is wrong."""

from __future__ import annotations

import dataclasses
import math
import re

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs.cloud import CloudOptions, DataflowOptions, DeployOptions, VertexOptions
from configs.errors import InputError
from configs.recipe import Lists, PreprocessOptions, Recipe, TrainOptions, parse_recipe

# The same examples in every run.
steady = settings(deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

SECTIONS = {
    "lists": Lists,
    "preprocess": PreprocessOptions,
    "train": TrainOptions,
    "cloud": CloudOptions,
    "dataflow": DataflowOptions,
    "vertex": VertexOptions,
    "deploy": DeployOptions,
}
FIELDS = [(name, field.name) for name, section in SECTIONS.items() for field in dataclasses.fields(section)]


class Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e-3, which a recipe takes for numbers and plain YAML 1.1 does not."""


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789"))


def dump(value: object) -> bytes:
    return yaml.dump(value, Dumper=Dumper, allow_unicode=True).encode()


def read(raw: bytes) -> Recipe | None:
    """The recipe, if it is one; else checks that it was refused in one line that begins with the file."""
    try:
        recipe = parse_recipe(raw, where="my.yaml", default_name="my")
    except InputError as error:
        assert str(error).startswith("my.yaml")
        assert str(error).count("my.yaml") == 1, str(error)
        assert "\n" not in str(error), str(error)
        return None
    check(recipe)
    return recipe


def check(recipe: Recipe) -> None:
    """Every field has the type that its class declares."""
    for name, section in SECTIONS.items():
        values = getattr(recipe, name)
        assert type(values) is section
        for field in dataclasses.fields(section):
            value = getattr(values, field.name)
            if field.type == "int":
                assert type(value) is int
                assert value >= 0
            elif field.type == "int | None":
                assert value is None or (type(value) is int and value >= 1)
            elif field.type in ("float", "float | None"):
                assert type(value) in (int, float) or (value is None and field.type == "float | None")
                assert value is None or math.isfinite(value)
            elif field.type == "bool":
                assert type(value) is bool
            elif field.type == "dict[str, str]":
                assert all(type(text) is str for pair in value.items() for text in pair)
            else:
                assert (value is None and str(field.type).endswith("| None")) or type(value) is str
    assert 0 <= recipe.train.dropout < 1 <= recipe.train.batch_size
    assert type(recipe.name) is str
    assert recipe.name


_pieces = st.sampled_from(
    [
        *(
            "name",
            "lists",
            "preprocess",
            "train",
            "cloud",
            "labels",
            "dict",
            "seed",
            "max_steps",
            "precision",
            "dropout",
            "hugs",
            "x",
        ),
        *(": ", ":", "\n", "\n  ", "- ", "{", "}", "[", "]", ", ", "'", '"', "#", "|", ">", "?", "? ", "%", "@", "\t"),
        *("&a ", "*a", "<<: ", "!!int ", "!!bool ", "!!float ", "!!timestamp ", "!!binary ", "!!set ", "!x ", "---\n"),
        *("1", "-1", "1e-3", "0x", "0b1", ".inf", ".nan", "1:30", "2024-13-45", "null", "~", "yes", "1_0", "\ufeff"),
    ]
)


@steady
@given(st.binary(max_size=100))
@example(b"[" * 2000)
@example(b"name: \0")
@example(b"train: {learning_rate: 1" + b"0" * 400 + b"}")
@example(b"train: {max_steps: -0x" + b"f" * 5000 + b"}")
@example(b"0x" + b"f" * 5000)
@example(b"train: {seed: !!int ''}")
@example(b"train: {dropout: !!float ''}")
@example(b"train: {dropout: !!float a}")
@example(b"name: !!bool maybe")
@example(b"name: !!timestamp today")
@example(b"name: !!binary '\xc3\xa9'")
@example(b"&a name: *a")
@example(b"&a {name: x, lists: *a}")
@example(b'"a\\nb": 1')
@example(b'lists: {"a\\nb": 1}')
@example(b"? [a, b]\n: 1")
@example(b"? {a: b}\n: 1")
@example(b"<<: {name: x}")
@example(b"<<: [{train: {seed: 1}}, 3]")
@example(b"a: 1\n---\nb: 2")
@example(b"name: a\nname: b")
def test_any_bytes_are_a_recipe_or_one_line(raw):
    read(raw)


@steady
@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_one_line(text):
    read(text.encode("utf-8", "surrogatepass"))


@settings(steady, max_examples=1000)
@given(st.lists(_pieces, max_size=14))
def test_any_yaml_is_a_recipe_or_one_line(pieces):
    read("".join(pieces).encode())


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=8),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=4),
    st.sampled_from(["auto", "float32", "gzip", "skip", "none", "openvino", "in\u2028side", "1e-3", "10" * 200]),
)
_values = st.recursive(
    _scalars,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values, max_size=3),
    max_leaves=5,
)


@settings(steady, max_examples=600)
@given(st.sampled_from(FIELDS), _values)
def test_any_value_of_a_field_is_taken_as_it_is_or_refused(field, value):
    section, name = field
    recipe = read(dump({section: {name: value}}))
    if recipe is not None:
        assert getattr(getattr(recipe, section), name) == value


@steady
@given(st.sampled_from(["name", *SECTIONS]) | st.text(max_size=8), _values)
def test_any_value_of_a_section_is_taken_or_refused(key, value):
    recipe = read(dump({key: value}))
    if recipe is not None and key == "name":
        assert recipe.name == value


@steady
@given(
    st.dictionaries(st.sampled_from(["hidden_units", "batch_size", "max_steps", "seed"]), st.integers(1, 10**12)),
    st.sampled_from(["auto", "float32", "bfloat16", "int8"]),
    st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20),
)
def test_a_written_recipe_comes_back(train, precision, path):
    written = {"lists": {"train": path}, "preprocess": {"precision": precision}, "train": train}
    expected = Recipe(
        name="my",
        lists=Lists(train=path),
        preprocess=PreprocessOptions(precision=precision),
        train=TrainOptions(**train),
    )
    assert read(dump(written)) == expected
