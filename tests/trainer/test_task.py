from __future__ import annotations

import dataclasses
import html
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from configs.printed_commands import program_command
from tests.support.folders import files_below
from trainer import task

FILES = ["checkpoints", "logs", "metrics.json", "model", "report.html"]
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def output(arguments: list[str]) -> str:
    return arguments[arguments.index("--output_path") + 1]


def metrics_of(arguments: list[str]) -> dict:
    with open(os.path.join(output(arguments), "metrics.json"), encoding="utf-8") as stream:
        return json.load(stream)


def model_info_of(arguments: list[str]) -> dict:
    with open(os.path.join(output(arguments), "model/assets.extra/model.json"), encoding="utf-8") as stream:
        return json.load(stream)


def test_a_run_leaves_metrics_model_checkpoints_and_logs(mean_colour_backbone, task_arguments, capsys):
    assert task.main(task_arguments) == 0
    metrics = metrics_of(task_arguments)
    assert metrics["eval"]["accuracy"] > 0.9
    assert np.isfinite(metrics["eval"]["loss"])
    assert metrics["eval"]["majority_share"] == pytest.approx(1 / 3)
    assert [row["support"] for row in metrics["eval"]["per_class"]] == [10, 10, 10]
    assert [row["train_support"] for row in metrics["eval"]["per_class"]] == [30, 30, 30]
    matrix = metrics["eval"]["confusion_matrix"]
    assert matrix["labels"] == ["red", "green", "blue"]
    assert np.sum(matrix["counts"]) == 30
    assert metrics["train"]["examples"] == 90
    assert metrics["steps"] == 60
    assert metrics["options"]["hidden_units"] == 16
    assert metrics["exported_checkpoint"]["eval_loss"] == pytest.approx(metrics["eval"]["calibration"]["loss_before"])
    assert metrics["eval"]["loss"] == metrics["eval"]["calibration"]["loss_after"]
    assert metrics["backbone"]["random_weights"] is True
    assert any("RANDOM weights" in warning for warning in metrics["warnings"])
    info = model_info_of(task_arguments)
    assert info["head_digest"] == metrics["model"]["head_digest"]
    assert "RANDOM weights" in info["warning"]
    assert info["temperature"] == metrics["model"]["temperature"] == metrics["eval"]["calibration"]["temperature"]
    choice = metrics["model"]["temperature_choice"]
    assert choice["temperature"] == info["temperature"]
    assert f"  {choice['reason']}\n" in (printed := capsys.readouterr()).out
    with open(os.path.join(output(task_arguments), "report.html"), encoding="utf-8") as page:
        assert html.escape(choice["reason"]) in page.read()
    assert info["threshold"] == metrics["eval"]["answers"]["threshold"]
    assert metrics["exports"]["savedmodel"]["largest_difference"] <= metrics["exports"]["savedmodel"]["tolerance"]
    assert sorted(os.listdir(output(task_arguments))) == FILES
    assert sorted(os.listdir(os.path.join(output(task_arguments), "logs"))) == ["eval", "final_eval", "train"]
    assert "always answering 'red': 33.3%" in printed.out
    assert program_command("predict", "--model_dir", f"{output(task_arguments)}/model") in printed.out
    assert "RANDOM weights" in printed.err


def test_a_second_run_replaces_the_first(without_network, task_arguments, capsys):
    task.main(task_arguments)
    first = metrics_of(task_arguments)["model"]
    page = {"title": "Is it red?", "texts": {"red": "it is red"}, "colours": {"red": "green"}}
    task.main([*task_arguments, "--seed", "5", "--page", json.dumps(page)])
    assert model_info_of(task_arguments)["page"] == page
    second = metrics_of(task_arguments)["model"]
    assert first != second
    assert model_info_of(task_arguments)["head_digest"] == second["head_digest"]
    # The checkpoint stays that of the seed, whatever the page. A page for other labels is none of this model's.
    task.main([*task_arguments, "--seed", "0", "--page", json.dumps({**page, "texts": {"rot": "it is red"}})])
    assert "gets no page of the recipe, since that names labels that are not there: rot" in capsys.readouterr().err
    assert metrics_of(task_arguments)["model"] == first
    assert "page" not in model_info_of(task_arguments)


def test_a_run_that_fails_leaves_the_model_before_it_whole(without_network, task_arguments, monkeypatch):
    task.main(task_arguments)
    before = metrics_of(task_arguments)

    def half_written(model_dir, **kwargs):
        os.makedirs(model_dir)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trainer.export.saved_model.save_model", half_written)
        with pytest.raises(KeyboardInterrupt):
            task.main([*task_arguments, "--seed", "5"])
    assert metrics_of(task_arguments) == before
    assert model_info_of(task_arguments)["head_digest"] == before["model"]["head_digest"]
    task.main(task_arguments)
    assert sorted(os.listdir(output(task_arguments))) == FILES


def test_a_test_set_is_measured_and_the_folders_of_vertex_ai_are_filled(
    without_network, task_arguments, write_set, tmp_path, capsys, monkeypatch
):
    for name in ("MODEL_DIR", "CHECKPOINT_DIR", "TENSORBOARD_LOG_DIR"):
        monkeypatch.setenv(f"AIP_{name}", f"{tmp_path}/vertex/{name}/")
    embeddings = np.array([[0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [0.5, -0.5, -0.5]], np.float32)
    prefix = write_set(str(tmp_path / "preproc" / "test"), embeddings, [[0], [1], [2]])
    task.main([*task_arguments, "--test_data_paths", prefix])
    assert metrics_of(task_arguments)["test"]["accuracy"] == pytest.approx(2 / 3)
    assert "test: accuracy 66.7%" in capsys.readouterr().out
    copied, written = tmp_path / "vertex/MODEL_DIR", pathlib.Path(output(task_arguments), "model")
    assert files_below(copied) == files_below(written)
    assert sorted(os.listdir(tmp_path / "vertex/CHECKPOINT_DIR")) == ["best", "last"]
    assert sorted(os.listdir(tmp_path / "vertex/TENSORBOARD_LOG_DIR"))[0] == "eval"
    assert sorted(os.listdir(output(task_arguments))) == ["metrics.json", "model", "report.html"]


def test_a_class_without_evaluation_examples_is_named(without_network, task_arguments, write_set, tmp_path, capsys):
    shutil.rmtree(tmp_path / "preproc")
    embeddings = np.eye(3, dtype=np.float32).repeat(10, axis=0)
    write_set(str(tmp_path / "preproc" / "train"), embeddings, [[int(c)] for c in np.arange(3).repeat(10)])
    write_set(str(tmp_path / "preproc" / "eval"), embeddings[:20], [[int(c)] for c in np.arange(2).repeat(10)])
    task.main(task_arguments)
    assert "warning: class 'blue' has no eval example" in capsys.readouterr().err
    assert metrics_of(task_arguments)["eval"]["per_class"][2]["recall"] is None


def test_another_backbone_than_the_records_is_refused_before_training(
    mean_colour_backbone, task_arguments, write_set, tmp_path, mean_colour_identity
):
    other = dataclasses.replace(mean_colour_identity, weights="imagenet", seed=None, weights_digest="sha256:ab")
    for name in ("train", "eval"):
        write_set(str(tmp_path / "preproc" / name), np.eye(3, dtype=np.float32), [[0], [1], [2]], identity=other)
    with pytest.raises(InputError, match="weights imagenet against inception_v3 with RANDOM weights"):
        task.main(task_arguments)
    assert not os.path.exists(os.path.join(output(task_arguments), "checkpoints"))


def test_a_folder_that_is_no_model_of_ours_is_not_replaced(task_arguments):
    mine = os.path.join(output(task_arguments), "model")
    os.makedirs(mine)
    with pytest.raises(InputError, match="is not a model of an earlier run"):
        task.main(task_arguments)
    assert os.path.isdir(mine)


def test_an_output_path_that_cannot_be_a_folder(task_arguments, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [*task_arguments, "--output_path", str(tmp_path / "file" / "training")]
    with pytest.raises(InputError, match="--output_path: cannot write"):
        task.main(arguments)


def test_wrong_input_ends_with_one_line_and_code_2(tmp_path):
    command = [sys.executable, "-m", "trainer.task", "--train_data_paths", f"{tmp_path}/train*"]
    command += ["--eval_data_paths", f"{tmp_path}/eval*", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: --train_data_paths: nothing matches")


@pytest.mark.parametrize("program", ["trainer.task", "trainer.predict"])
def test_help_imports_no_tensorflow(program):
    code = f"""
import runpy, sys
sys.argv = ["program", "--help"]
try:
    runpy.run_module("{program}", run_name="__main__")
finally:
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr) == (0, "")
