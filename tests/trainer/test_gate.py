"""The gate: a model that is not accurate enough is not exported, and its numbers are kept."""

import json
import os

import pytest

from configs.errors import InputError
from tests.support.folders import files_below
from trainer import task
from trainer.evaluation.gate import measure_gate, refusal


def numbers(right, interval, examples=100, **more):
    return {"accuracy": right, "accuracy_interval": list(interval), "examples": examples, **more}


def test_the_lower_bound_counts_of_the_test_set_if_there_is_one():
    metrics = {"eval": numbers(0.9, (0.8, 0.95)), "test": numbers(0.7, (0.6, 0.8))}
    assert measure_gate({"eval": metrics["eval"]}, 0.8)["passed"]
    assert not measure_gate({"eval": metrics["eval"]}, 0.81)["passed"]
    gate = measure_gate(metrics, 0.65)
    assert (gate["measured_on"], gate["accuracy"], gate["lower_bound"], gate["passed"]) == ("test", 0.7, 0.6, False)
    assert refusal(gate) == (
        "the accuracy on the test set is 70.0% of 100 examples, and at least 60.0% with 95% confidence; "
        "--assert_accuracy_at_least wants 65.0%"
    )


def test_images_that_were_trained_on_do_not_open_it():
    rest = {"left_out": 60, **numbers(0.5, (0.3, 0.7), examples=40)}
    metrics = {"eval": numbers(0.9, (0.8, 0.95), without_shared_images=rest)}
    assert measure_gate(metrics, 0.5)["lower_bound"] == 0.3
    nothing = {"left_out": 100, "examples": 0, "accuracy": None, "accuracy_interval": None}
    gate = measure_gate({"eval": numbers(0.9, (0.8, 0.95), without_shared_images=nothing)}, 0.0)
    assert not gate["passed"]
    assert "it measures nothing" in refusal(gate)


def test_below_it_nothing_is_exported_and_an_older_model_stays(without_network, task_arguments, tmp_path):
    folder = tmp_path / "training"
    gate = [*task_arguments, "--check_photos", "0", "--export_dir", str(tmp_path / "exported")]
    with pytest.raises(InputError, match="the model is not exported: the accuracy on the eval set is .*wants 100.0%"):
        task.main([*gate, "--assert_accuracy_at_least", "1"])
    assert sorted(os.listdir(folder / "refused")) == ["metrics.json", "report.html"]
    assert not {"model", "metrics.json", "report.html"} & set(os.listdir(folder))
    assert not (tmp_path / "exported/saved_model.pb").exists()
    metrics = json.loads((folder / "refused/metrics.json").read_text())
    assert metrics["gate"]["accuracy"] == metrics["eval"]["accuracy"]
    assert metrics["gate"]["lower_bound"] == metrics["eval"]["accuracy_interval"][0]
    assert metrics["warnings"][0].startswith("NOT EXPORTED: ")
    assert "NOT EXPORTED: " in (folder / "refused/report.html").read_text()
    # The same command with a lower gate goes on from the checkpoint, exports, and takes the refused numbers away.
    task.main([*gate, "--assert_accuracy_at_least", "0.6"])
    assert json.loads((folder / "metrics.json").read_text())["gate"]["passed"] is True
    assert not (folder / "refused").exists()
    before = {name: data for name, data in files_below(folder).items() if name.startswith(("model/", "metrics.json"))}
    assert before
    with pytest.raises(InputError, match="not exported"):
        task.main([*gate, "--assert_accuracy_at_least", "1"])
    after = files_below(folder)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("value", ["1.01", "-0.1", "nan", "90%"])
def test_a_share_that_is_none_is_one_line(task_arguments, value):
    with pytest.raises(InputError, match="assert_accuracy_at_least"):
        task.main([*task_arguments, "--assert_accuracy_at_least", value])
