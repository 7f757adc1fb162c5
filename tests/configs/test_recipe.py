from __future__ import annotations

import dataclasses
import os

import pytest
import yaml

import configs
from configs.errors import InputError
from configs.page import PageOptions
from configs.recipe import (
    Lists,
    PreprocessOptions,
    Recipe,
    TrainOptions,
    load_recipe,
    parse_recipe,
    recipe_names,
)
from configs.yaml_mapping import parse_mapping


def parse(text: str) -> Recipe:
    return parse_recipe(text.encode(), where="my.yaml", default_name="my")


def complaint(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_recipe_of_the_project_loads_and_is_named_after_its_file():
    assert set(recipe_names()) >= {"hugs", "flowers"}
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_hugs_spells_out_every_default():
    recipe = load_recipe("hugs")
    assert dataclasses.replace(recipe, page=PageOptions()) == Recipe(name="hugs")
    assert recipe.page.title == "Can I hug that?"
    with open(os.path.join(os.path.dirname(configs.__file__), "hugs.yaml")) as stream:
        written = yaml.safe_load(stream)
    sections = dataclasses.asdict(recipe)
    assert set(written) == set(sections)
    assert all(set(written[name]) == set(fields) for name, fields in sections.items() if name != "name")


def test_fields_have_defaults():
    recipe = parse("train: {max_steps: 7}\npreprocess:\n")
    assert recipe == Recipe(name="my", train=TrainOptions(max_steps=7))


def test_a_recipe_is_read_from_a_path(tmp_path):
    path = tmp_path / "cats.yaml"
    path.write_text("lists: {test: null}\n")
    assert load_recipe(str(path)) == Recipe(name="cats", lists=Lists(test=None))


def test_numbers_as_people_write_them():
    assert parse("train: {learning_rate: 1e-3, dropout: 0}").train.learning_rate == 0.001


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(name="x").name = "y"  # type: ignore[misc]


def test_checks_hold_without_a_file_too():
    with pytest.raises(InputError, match=r"preprocess\.rows_per_shard must be .* Received: 0"):
        PreprocessOptions(rows_per_shard=0)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(InputError, match=r"'flower'.*flowers, hugs.* Did you mean 'flowers'\?"):
        load_recipe("flower")


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"no/such\.yaml: cannot be read \(No such file"):
        load_recipe("no/such.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\ntrain:\n  dropot: 0.5", "my.yaml, line 3: train.dropot is not a field"),
        ("name: a\ntrain:\n  dropot: 0.5", "Did you mean 'dropout'?"),
        (
            "trian: {}",
            "my.yaml, line 1: trian is not a field of a recipe; known here: name, lists, preprocess",
        ),
        ("1: x", "1 is not a field"),
        ("train: {dropout: 1}", "train.dropout must be a number from 0 to below 1. Received: 1."),
        ("train: {dropout: half}", "Received: 'half'."),
        ("train: {dropout: .nan}", "Received: nan."),
        ("train: {learning_rate: 0}", "train.learning_rate must be a number above 0. Received: 0."),
        ("train: {batch_size: 0}", "train.batch_size must be a whole number of at least 1. Received: 0."),
        ("train: {batch_size: yes}", "Received: True."),
        ("train: {max_steps: 1.5}", "Received: 1.5."),
        ("train: {hidden_units: -1}", "train.hidden_units must be a whole number of at least 0"),
        ("train: {seed: null}", "Received: None."),
        ("preprocess: {compression: gzi}", "one of none, gzip. Received: 'gzi'. Did you mean 'gzip'?"),
        ("preprocess: {compression: [gzip]}", "Received: ['gzip']."),
        ("preprocess: {compression: {a: 1}}", "Received: {'a': 1}."),
        ("preprocess: {unknown_labels: ignore}", "one of fail, skip, unlabeled. Received: 'ignore'."),
        ("preprocess: {weights: ''}", "preprocess.weights must be one line of text"),
        ("page: {title: ''}", "page.title must be one line of text"),
        ("page: {colours: {a: gren}}", "page.colours.a must be one of green, red, blue"),
        ("page: {colours: {a: gren}}", "Did you mean 'green'?"),
        ("page: {colours: {a: 1}}", "page.colours.a must be one line of text"),
        ("page: {texts: [a]}", "page.texts must be pairs of a label and a text. Received: ['a']."),
        ("page: {texts: {1: a}}", "page.texts labels must be text. Received: 1."),
        ("page: {texts: {a: ''}}", "page.texts.a must be one line of text"),
        ("lists: {train: 3}", "lists.train must be one line of text"),
        ("lists: {eval: null}", "lists.eval must be one line of text"),
        ("train: [1, 2]", "train must be a section with fields of its own. Received: [1, 2]."),
        ("name: a/b", "name must be letters, digits"),
        ("name: 3", "Received: 3."),
        ("train:\n  seed: 1\n  seed: 2", "my.yaml, line 3: train.seed is given twice, first in line 2."),
        ("name: a\nname: b", "my.yaml, line 2: name is given twice"),
        ("name: [a\n", "line 2, column 1: not valid YAML"),
        ("a: !!python/object:os.system {}", "my.yaml, line 1"),
        ("- a", "a recipe is a mapping of fields such as `name: hugs`. Received: ['a']."),
        ("# nothing yet", "Received: nothing."),
        ("name: 2024-13-45", "a value cannot be read"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("? [a]\n: 1", "my.yaml"),
    ],
)
def test_wrong_recipes_name_file_field_rule_and_value(text, expected):
    assert expected in complaint(text)


def test_text_in_another_encoding_is_an_error():
    with pytest.raises(InputError, match="not UTF-8"):
        parse_recipe("name: caf\u00e9".encode("latin-1"), where="my.yaml", default_name="my")


def test_aliases_are_refused_before_they_grow():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match=r"^r\.yaml, line 2: \*a0 stands for a value that is written elsewhere"):
        parse_mapping("\n".join(lines).encode(), where="r.yaml", what="a recipe")
    with pytest.raises(InputError, match="line 2: << is not taken here"):
        parse_mapping(b"name: &x {a: 1}\n<<: *x\n", where="r.yaml", what="a recipe")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name: hugs\nlists: {train: "\\ud800.csv"}\n', "line 2: '\\ud800.csv' holds a character that no text has"),
        ('lists: {train: "a\\0.csv"}\n', "line 1: 'a\\x00.csv' holds a character that no text has"),
        ('name: "\\UFFFFFFFF"\n', "a value cannot be read"),
        ("preprocess: {<<: {seed: 1, seed: 2}, seed: 3}\n", "line 1: << is not taken here"),
        ("train: {max_steps: 190:20:30}\n", "must be a whole number of at least 1. Received: '190:20:30'"),
        ("train: {max_steps: 0777}\n", "must be a whole number of at least 1. Received: '0777'"),
        ("train: {l2: 1:30.5}\n", "Received: '1:30.5'"),
        ("name: " + "a" * 300_000, "no longer than 262144 bytes"),
    ],
)
def test_what_yaml_makes_of_texts_and_no_reader_expects_is_one_line(text, expected):
    assert expected in complaint(text)


def test_a_device_without_an_end_is_one_line():
    with pytest.raises(InputError, match="no longer than"):
        load_recipe("/dev/zero")
