"""A whole training on record sets with several views of each image."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.view_sets import add_views
from tests.test_written_pages import Fields, paths_in
from trainer import task
from trainer.data.record_parser import RecordParser
from trainer.reports.view_words import views_words

NUM_VIEWS = 3


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.4, (count, NUM_VIEWS - 1, 3)).astype(np.float32)


@pytest.fixture
def view_arguments(task_arguments, colour_sets):
    """A run on sets of which both have three views of each image."""
    for glob, count in zip(colour_sets, (90, 30), strict=True):
        add_views(glob.rstrip("*"), noise(count))
    return [*task_arguments, "--check_photos", "0"]


def output(arguments: list[str], name: str) -> str:
    return (pathlib.Path(arguments[arguments.index("--output_path") + 1]) / name).read_text()


def metrics_of(arguments: list[str]) -> dict:
    return json.loads(output(arguments, "metrics.json"))


def test_a_run_draws_views_and_says_what_they_brought(without_network, view_arguments, capsys, monkeypatch):
    assert task.main(view_arguments) == 0
    metrics = metrics_of(view_arguments)
    assert metrics["views"] == {
        "count": 3,
        "flip_left_right": True,
        "random_crop": 10.0,
        "random_scale": 0.0,
        "random_brightness": 0.0,
        "drawn": True,
    }
    assert metrics["view_gain"]["seeds"] == [0, 1, 2]
    fields = Fields("metrics.json")
    assert set(paths_in(metrics, fields)) - fields.leaves == set()
    assert {leaf for leaf in fields.leaves if leaf.startswith("view")} <= set(paths_in(metrics, fields))
    printed = capsys.readouterr()
    assert (
        "the images of the eval set have 3 views (mirrored, crop 10 %): only view 0, the undistorted one, is used"
        in printed.err
    )
    assert "the images of the train set have 3 views (mirrored, crop 10 %): each step draws one of them" in printed.err
    assert "with 6 more trainings; --no-compare_views leaves it out" in printed.err
    sentences = views_words(metrics)
    assert len(sentences) == 2
    page = " ".join(output(view_arguments, "report.html").split())
    for sentence in sentences:
        assert sentence in printed.out
        assert sentence in page
    assert "What did the views bring?" in page
    # The model, evaluated again, is measured on view 0 as well.
    monkeypatch.setattr(RecordParser, "_any_layout", None)  # The slow way is not taken.
    evaluation = view_arguments[view_arguments.index("--eval_data_paths") + 1]
    folder = view_arguments[view_arguments.index("--output_path") + 1]
    task.main(["--write_predictions", "--eval_data_paths", evaluation, "--output_path", folder])
    assert "the images of the eval set have 3 views" in capsys.readouterr().err
    again = json.loads(output(view_arguments, "evaluation.json"))
    assert again["eval"]["accuracy"] == metrics["eval"]["accuracy"]


def test_without_views_the_model_is_that_of_a_set_without_views(
    without_network, task_arguments, colour_sets, capsys, tmp_path
):
    digests = []
    (tmp_path / "corrections.csv").write_text("image_uri,action,label\ntrain/3.jpg,change,blue\ntrain/4.jpg,remove,\n")
    corrections = ["--corrections", f"{tmp_path}/corrections.csv", "--no-compare_corrections"]
    for arguments in ([], ["--no-draw_views"], ["--no-compare_views", *corrections]):
        if arguments == ["--no-draw_views"]:
            add_views(colour_sets[0].rstrip("*"), noise(90))
        task.main([*task_arguments, "--max_steps", "5", "--check_photos", "0", *arguments])
        metrics = metrics_of(task_arguments)
        assert "view_gain" not in metrics
        digests.append(metrics["model"]["head_digest"])
        if not arguments:
            assert metrics["views"] is None
            assert "What did the views bring?" not in output(task_arguments, "report.html")
            assert "The training images have" not in capsys.readouterr().out
    assert digests[0] == digests[1] != digests[2]
    assert metrics["train"]["examples"] == 89 and output(task_arguments, "corrections.jsonl").count("\n") == 2
    printed = capsys.readouterr()
    assert "only view 0, the undistorted one, was used (--no-draw_views)." in printed.out
    assert "What the views brought was not measured (--no-compare_views)." in printed.out
    # The third run did not take the checkpoint of the second for its own.
    assert "is of another training (other training data)" in printed.err


def test_sets_with_and_without_views_are_one_line_and_train_on_view_0_together(
    without_network, view_arguments, colour_sets, write_set, tmp_path
):
    embeddings = np.eye(3, dtype=np.float32)
    more = write_set(f"{tmp_path}/more/train", embeddings, [[0], [1], [2]])
    place = view_arguments.index("--train_data_paths") + 1
    arguments = [*view_arguments[:place], f"{colour_sets[0]},{more}*", *view_arguments[place + 1 :]]
    with pytest.raises(InputError, match=r"have different views: 1 view against 3 views") as error:
        task.main(arguments)
    assert "\n" not in str(error.value)
    task.main([*arguments, "--no-draw_views", "--max_steps", "5"])
    assert metrics_of(arguments)["train"]["examples"] == 93


def words(**changes) -> str:
    gain = {"with_views": 0.912, "with_view_0": 0.9, "gain": 0.012, "interval": [0.001, 0.023], "brought": "more"}
    metrics = {
        "views": {
            "count": 4,
            "flip_left_right": False,
            "random_crop": 0,
            "random_scale": 12.5,
            "random_brightness": 3,
            "drawn": True,
        },
        "train": {"examples": 100},
        "view_gain": {
            "seeds": [0, 1, 2],
            "train_examples": 100,
            "left_out": {"eval": 2},
            "eval": {**gain, **changes},
        },
    }
    return " ".join(views_words(metrics))


def test_the_sentences():
    assert words() == (
        "The training images have 4 views (scale 12.5 %, brightness 3 %); each step drew one of them. The views "
        "improved the accuracy on the evaluation set (91.2% with them and 90.0% without, difference +1.2 points, 95% "
        "interval +0.1 to +2.3, 3 seeds, without the 2 shared images)."
    )
    assert "The views brought nothing that can be told from chance on the evaluation set (" in words(brought="nothing")
    assert "The views worsened the accuracy on the evaluation set (" in words(brought="less")
