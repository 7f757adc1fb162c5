from __future__ import annotations

import pytest

from configs.errors import InputError
from trainer.options import parse_options

REQUIRED = ["--train_data_paths", "t*", "--eval_data_paths", "e*", "--output_path", "out"]


def test_defaults_are_those_of_the_published_sample():
    options = parse_options(REQUIRED)
    assert (options.hidden_units, options.dropout, options.batch_size, options.max_steps) == (
        512,
        0.5,
        100,
        1000,
    )
    assert options.learning_rate == 1e-3
    assert options.standardize


def test_paths_may_be_repeated_comma_separated_and_expanded_by_the_shell():
    options = parse_options([*REQUIRED, "--train_data_paths", "a,b", "c"])
    assert options.train_data_paths == ("t*", "a", "b", "c")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--hidden_units", "-1"),
        ("--dropout", "1"),
        ("--dropout", "nan"),
        ("--learning_rate", "0"),
        ("--learning_rate", "nan"),
        ("--batch_size", "0"),
        ("--max_steps", "0"),
        ("--max_steps", "many"),
        ("--eval_every_steps", "0"),
        ("--seed", "-1"),
        ("--train_data_paths", ","),
        ("--output_path", ""),
    ],
)
def test_a_bad_value_is_refused_with_the_flag_s_name(flag, value):
    base = REQUIRED if flag != "--train_data_paths" else REQUIRED[2:]
    with pytest.raises(InputError, match=flag):
        parse_options([*base, flag, value])


def test_an_unknown_flag_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="Did you mean '--hidden_units'"):
        parse_options([*REQUIRED, "--hiden_units=3"])


def test_a_missing_flag_is_refused():
    with pytest.raises(InputError, match="--output_path"):
        parse_options(REQUIRED[:4])


def test_a_recipe_gives_defaults_and_flags_win(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\ntrain:\n  hidden_units: 7\n  max_steps: 5\n")
    options = parse_options([*REQUIRED, "--recipe", str(recipe), "--max_steps", "9"])
    assert (options.hidden_units, options.max_steps) == (7, 9)
