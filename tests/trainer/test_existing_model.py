from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from configs.errors import InputError
from trainer import task


def read_csv(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_an_existing_model_says_again_what_the_training_said(
    without_network, task_arguments, colour_sets, write_set, tmp_path, capsys
):
    task.main([*task_arguments, "--write_predictions"])
    metrics = json.loads((tmp_path / "training" / "metrics.json").read_text())
    predictions = read_csv(tmp_path / "training" / "predictions.csv")
    assert len(predictions) == 30
    assert {row["set"] for row in predictions} == {"eval"}
    assert np.mean([int(row["correct"]) for row in predictions]) == pytest.approx(metrics["eval"]["accuracy"])

    _, evaluation = colour_sets
    out = tmp_path / "again"
    evaluate = ["--write_predictions", "--output_path", str(out), "--model_dir", str(tmp_path / "training" / "model")]
    capsys.readouterr()
    task.main([*evaluate, "--eval_data_paths", evaluation])
    printed = capsys.readouterr()
    assert "nothing was trained" in printed.out
    assert "RANDOM weights" in printed.err
    again = json.loads((out / "evaluation.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.html", "evaluation.json", "predictions.csv"]
    for name in ("accuracy", "confusion_matrix", "top_k"):
        assert again["eval"][name] == metrics["eval"][name]
    for name in ("error_before", "error_after", "loss_after", "temperature"):
        assert again["eval"]["calibration"][name] == pytest.approx(metrics["eval"]["calibration"][name], abs=1e-5)
    assert again["eval"]["answers"] == metrics["eval"]["answers"]
    for one, other in zip(read_csv(out / "predictions.csv"), predictions, strict=True):
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1e-5)
        assert one["uri"] == other["uri"]

    strange = write_set(str(tmp_path / "strange"), np.eye(3, dtype=np.float32), [[0], [1], [2]], labels=("a", "b", "c"))
    with pytest.raises(InputError, match=r"--eval_data_paths: the labels .* label 0 is 'red' against 'a'"):
        task.main([*evaluate, "--eval_data_paths", strange])
    wide = write_set(str(tmp_path / "wide"), np.eye(3, dtype=np.float32), [[0], [1], [1]], labels=("red", "green"))
    with pytest.raises(InputError, match="3 labels against 2"):
        task.main([*evaluate, "--test_data_paths", wide])


def test_there_must_be_a_model(colour_sets, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        task.main(["--write_predictions", "--output_path", str(tmp_path), "--eval_data_paths", colour_sets[1]])
