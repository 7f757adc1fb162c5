from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from trainer import predict, task


@pytest.fixture
def model_dir(mean_colour_backbone, task_arguments, tmp_path, capsys):
    task.main(task_arguments)
    capsys.readouterr()
    return str(tmp_path / "training" / "model")


@pytest.fixture
def photos(tmp_path):
    paths = []
    for name, colour in (
        ("red.tiff", (230, 60, 60)),
        ("green.jpg", (60, 230, 60)),
        ("blue.png", (60, 60, 230)),
    ):
        path = str(tmp_path / name)
        Image.new("RGB", (400, 300), colour).save(path)
        paths.append(path)
    return paths


def test_photos_get_their_labels_best_first(model_dir, photos, capsys):
    assert predict.main(["--model_dir", model_dir, *photos, "--top_k", "2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[::3] == photos
    assert [line.split()[-1] for line in lines[1::3]] == ["red", "green", "blue"]
    assert "RANDOM weights" in printed.err


def test_json_is_one_object_a_line(model_dir, photos, capsys):
    assert predict.main(["--model_dir", model_dir, *photos, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == photos
    assert [answer["predictions"][0]["label"] for answer in answers] == ["red", "green", "blue"]
    for answer in answers:
        scores = [prediction["score"] for prediction in answer["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert answer["random_weights"] is True


def test_bad_photos_are_told_and_good_ones_answered(model_dir, photos, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not an image")
    bad = [str(tmp_path / name) for name in ("missing.jpg", "text.jpg")] + [str(tmp_path)]
    assert predict.main(["--model_dir", model_dir, bad[0], photos[0], *bad[1:]]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == photos[0]
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert [path in line for path, line in zip(bad, errors, strict=True)] == [True] * 3


def test_a_model_that_is_not_there(tmp_path, photos):
    with pytest.raises(InputError, match="there is no folder"):
        predict.main(["--model_dir", str(tmp_path / "nowhere"), photos[0]])
    with pytest.raises(InputError, match="holds no model"):
        predict.main(["--model_dir", str(tmp_path), photos[0]])


def test_the_folder_above_the_model_is_a_usual_slip(model_dir, photos):
    with pytest.raises(InputError, match=r"Did you mean .*training/model\?"):
        predict.main(["--model_dir", os.path.dirname(model_dir), photos[0]])


def test_half_a_model(model_dir, photos):
    shutil.rmtree(os.path.join(model_dir, "variables"))
    with pytest.raises(InputError, match="cannot be loaded"):
        predict.main(["--model_dir", model_dir, photos[0]])


@pytest.mark.parametrize("arguments", [["--top_k", "0"], ["--top_k", "x"], ["--tpo_k", "3"]])
def test_bad_arguments(tmp_path, photos, arguments):
    with pytest.raises(InputError, match="--t"):
        predict.main(["--model_dir", str(tmp_path), photos[0], *arguments])


def test_equal_scores_stand_in_order_of_ids():
    from trainer.prediction import Prediction

    prediction = Prediction(label="a", label_id=0, scores=np.array([0.25, 0.5, 0.25], np.float32))
    assert [label for label, _, _ in prediction.top(("a", "b", "c"), 3)] == ["b", "a", "c"]
