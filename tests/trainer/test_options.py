from __future__ import annotations

import pytest

from configs.errors import InputError
from configs.page import PageOptions
from configs.recipe import load_recipe
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
        ("--epochs", "0"),
        ("--optimizer", "lion"),
        ("--class_weights", "heavy"),
        ("--label_smoothing", "1"),
        ("--label_smoothing", "nan"),
        ("--l2", "-1"),
        ("--l2", "inf"),
        ("--early_stopping", "-1"),
        ("--label_mode", "both"),
        ("--unlabeled", "keep"),
        ("--seeds", "0"),
        ("--tune", "-1"),
        ("--tune_sec", "0"),
        ("--min_precision", "0"),
        ("--min_precision", "nan"),
        ("--export_formats", "tarball"),
        ("--export_formats", ","),
        ("--input_dict", ""),
        ("--model_dir", "a_model"),
        ("--max_memory_mb", "0"),
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


def test_how_long_to_train_is_said_once():
    with pytest.raises(InputError, match="--max_steps and --epochs"):
        parse_options([*REQUIRED, "--max_steps", "9", "--epochs", "2"])


def test_epochs_are_counted_in_steps_of_the_batches_there_are():
    options = parse_options([*REQUIRED, "--epochs", "3", "--batch_size", "100"])
    assert [options.num_steps(examples) for examples in (1000, 1001, 30)] == [30, 31, 3]
    assert parse_options(REQUIRED).num_steps(30) == 1000


def test_an_existing_model_needs_no_training_data():
    options = parse_options(["--write_predictions", "--eval_data_paths", "e", "--output_path", "out"])
    assert options.evaluates_only
    assert options.existing_model_dir == "out/model"
    options = parse_options([*REQUIRED, "--write_predictions", "--model_dir", "m"])
    assert options.evaluates_only
    assert options.existing_model_dir == "m"
    assert not parse_options([*REQUIRED, "--write_predictions"]).evaluates_only
    with pytest.raises(InputError, match="--eval_data_paths or --test_data_paths"):
        parse_options(["--write_predictions", "--output_path", "out"])
    with pytest.raises(InputError, match="--train_data_paths"):
        parse_options(REQUIRED[2:])


def test_formats_may_be_repeated_and_comma_separated():
    options = parse_options([*REQUIRED, "--export_formats", "savedmodel,litert", "onnx"])
    assert options.export_formats == ("savedmodel", "litert", "onnx")


def test_steps_on_the_command_line_win_over_epochs_of_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train: {epochs: 3, optimizer: sgd, class_weights: balanced, unlabeled: default_class}")
    options = parse_options([*REQUIRED, "--recipe", str(recipe)])
    assert (options.epochs, options.optimizer, options.class_weights) == (3, "sgd", "balanced")
    assert options.unlabeled == "default_class"
    assert parse_options([*REQUIRED, "--recipe", str(recipe), "--max_steps", "9"]).epochs is None


def test_the_page_comes_from_the_recipe_or_the_command_line():
    assert parse_options([*REQUIRED]).page_options == PageOptions()
    assert parse_options([*REQUIRED, "--recipe", "flowers"]).page_options == load_recipe("flowers").page
    of_hugs = parse_options([*REQUIRED, "--recipe", "hugs"])
    assert of_hugs.page_options == load_recipe("hugs").page != PageOptions()
    own = parse_options([*REQUIRED, "--recipe", "hugs", "--page", '{"title": "Cat?"}'])
    assert own.page_options == PageOptions(title="Cat?")
    for text, words in {
        "{": "must be JSON",
        '{"colour": 1}': "must have only title",
        '{"title": 1}': "page.title",
    }.items():
        with pytest.raises(InputError, match=f"^--page: .*{words}"):
            parse_options([*REQUIRED, "--page", text])


def test_a_recipe_gives_defaults_and_flags_win(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\ntrain:\n  hidden_units: 7\n  max_steps: 5\n")
    options = parse_options([*REQUIRED, "--recipe", str(recipe), "--max_steps", "9"])
    assert (options.hidden_units, options.max_steps) == (7, 9)


def test_the_folders_that_vertex_ai_names_are_taken_unless_flags_name_others():
    flags = ["--train_data_paths", "t", "--eval_data_paths", "e", "--output_path", "o"]
    environ = {
        "AIP_MODEL_DIR": "gs://b/model/",
        "AIP_CHECKPOINT_DIR": "gs://b/c",
        "AIP_TENSORBOARD_LOG_DIR": "gs://b/l",
    }
    options = parse_options(flags, environ)
    assert (options.export_dir, options.checkpoint_folder, options.log_folder) == (
        "gs://b/model/",
        "gs://b/c",
        "gs://b/l",
    )
    assert parse_options([*flags, "--log_dir", "mine"], environ).log_folder == "mine"
    options = parse_options(flags, {})
    assert (options.export_dir, options.checkpoint_folder, options.log_folder) == (None, "o/checkpoints", "o/logs")
