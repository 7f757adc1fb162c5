from __future__ import annotations

import html.parser
import re

import jinja2
import numpy as np
import pytest

from tests.support.evaluation_sets import dataset, noisy
from trainer.data.photos import Thumbnail
from trainer.evaluation.metrics import evaluate
from trainer.reports.html_report import html_report
from trainer.reports.page_templates import page_environment
from trainer.reports.svg_charts import Line, heatmap, line_chart

HOSTILE = "<script>alert('x')</script>\"'&<img src=http://evil.example/x.png onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """Collects tags and text, and fails where tags do not nest."""

    VOID = frozenset({"meta", "img", "wbr"})

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "wbr":
            self.words.append("\0")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        words = " ".join(self.words).replace(" \0 ", "")  # A word may be broken there, and is one word.
        return " ".join(words.split())  # As a browser shows line breaks.


def metrics_of(evaluation, **changes):
    numbers = evaluation.numbers
    labels = [row["label"] for row in numbers["per_class"]]
    return {
        "warnings": [],
        "eval": numbers,
        "train": {"accuracy": 0.9, "loss": 0.2, "examples": 1234, "unlabeled": 0, "multi_label": 0},
        "history": [
            {"step": step, "train_loss": 1 / step, "eval_loss": 1.2 / step, "eval_accuracy": 0.5} for step in (25, 50)
        ],
        "exported_checkpoint": {"step": 50, "rule": "lowest eval loss"},
        "steps": 50,
        "train_sec": 1.25,
        "training_precision": "bfloat16",
        "labels": labels,
        "backbone": {
            "architecture": "inception_v3",
            "weights": "imagenet",
            "weights_digest": "sha256:ab",
            "image_definition": "x/1",
            "random_weights": False,
        },
        "backbone_verified": True,
        "record_sets": {"train": ["out/train"], "eval": ["out/eval"], "test": ["out/test"]},
        "options": {
            "hidden_units": 512,
            "output_path": "out/training",
            "train_data_paths": ["out/train*"],
            "weights": None,
        },
        "model": {"head_digest": "sha256:cd", "takes_images": True},
        **changes,
    }


def page_of(evaluation, *, thumbnail=lambda *_: None, **changes) -> tuple[str, Page]:
    text = html_report(
        metrics_of(evaluation, **changes),
        curves={"eval": evaluation.threshold_counts},
        thumbnail=thumbnail,
        created="2026-01-02",
    )
    return text, Page(text)


@pytest.mark.parametrize("label_mode", ["single", "multi"])
def test_the_page_tells_the_numbers(label_mode):
    evaluation = evaluate(*noisy(300, label_mode=label_mode), temperature=1.5, threshold=0.5)
    _, page = page_of(evaluation)
    numbers = evaluation.numbers
    low, high = numbers["accuracy_interval"]
    for words in (
        f"{100 * numbers['accuracy']:.1f}%",
        f"{100 * low:.1f}–{100 * high:.1f}%",
        f"{numbers['macro']['f1']:.3f}",
        "Exported is step 50",
        "sha256:ab",
        "out/eval",
        "hidden_units",
        "Most often confused",
    ):
        assert words in page.text
    assert "RANDOM" not in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 5  # Matrix, calibration, curves, loss, accuracy.


def test_nothing_is_loaded_from_elsewhere_and_nothing_from_the_data_is_markup():
    labels = (HOSTILE, "green", "</style><b>", "grey")
    data = dataset([0], [1], [2], [3], labels=labels)
    data.uris[:] = HOSTILE
    wrong = 5 * np.eye(4, dtype=np.float32)[[1, 0, 3, 2]]
    evaluation = evaluate(wrong, data)
    text, page = page_of(
        evaluation,
        warnings=[HOSTILE],
        record_sets={"train": [HOSTILE], "eval": [HOSTILE]},
        options={HOSTILE: HOSTILE},
        backbone={
            "architecture": HOSTILE,
            "weights": HOSTILE,
            "weights_digest": HOSTILE,
            "image_definition": HOSTILE,
            "random_weights": True,
        },
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert "<img" not in text
    loaded = [found[name] for _, found in page.tags for name in ("src", "href") if name in found]
    assert loaded == []
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert HOSTILE in page.text


def test_what_turns_text_around_or_cannot_be_seen_is_spelt_out():
    labels = ("cat\u202egnp\x1b[2J\x00", "green")
    evaluation = evaluate(5 * np.eye(2, dtype=np.float32), dataset([1], [0], labels=labels))
    text, page = page_of(evaluation)
    assert not set("\u202e\x1b\x00") & set(text)
    assert r"cat\u202egnp" in page.text


def test_a_value_that_a_template_lacks_is_an_error_and_not_an_empty_place():
    metrics = metrics_of(evaluate(*noisy(50)))
    del metrics["backbone"]["architecture"]
    with pytest.raises(jinja2.UndefinedError, match="architecture"):
        html_report(metrics, curves={}, thumbnail=lambda *_: None, created="")


def test_mistakes_show_their_photo_where_there_is_one():
    evaluation = evaluate(5 * np.eye(4, dtype=np.float32)[[1, 0, 0]], dataset([0], [1], [0]))
    asked = []

    def thumbnail(uri, digest):
        assert digest is None
        asked.append(uri)
        return Thumbnail(picture="data:image/jpeg;base64,AAAA", link="file:///0.jpg") if uri == "0.jpg" else None

    _, page = page_of(evaluation, thumbnail=thumbnail)
    assert asked == ["0.jpg", "1.jpg", "2.jpg"]  # Two mistakes, and a right answer for comparison.
    assert [found["href"] for tag, found in page.tags if tag == "a"] == ["file:///0.jpg"]
    assert [found["src"] for tag, found in page.tags if tag == "img"] == ["data:image/jpeg;base64,AAAA"]
    assert "photo not available" in page.text


def test_random_and_unverified_backbones_are_loud():
    evaluation = evaluate(*noisy(50))
    backbone = metrics_of(evaluation)["backbone"] | {"random_weights": True}
    _, page = page_of(evaluation, backbone=backbone, backbone_verified=False)
    assert "RANDOM weights" in page.text
    assert "UNVERIFIED" in page.text


def test_what_was_measured_beside_is_shown():
    evaluation = evaluate(*noisy(50))
    summary = {"mean": 0.5, "deviation": 0.02}
    _, page = page_of(
        evaluation,
        test=evaluate(*noisy(60, seed=1)).numbers,
        seeds={
            "seeds": [0, 1, 2],
            "note": "a note",
            "eval": {"accuracy": summary},
            "runs": [],
            "left_out": {"eval": 3},
        },
        learning_curve={
            "left_out": 3,
            "points": [{"examples": n, "accuracy": summary, "loss": summary} for n in (100, 200)],
            "last_doubling": {"accuracy_gain": 0.031, "standard_error": 0.01},
            "more_images_help": "yes",
            "classes": [
                {"label": "blue", "train_support": 9, "f1": 0.4, "gain": 0.1, "gain_standard_error": 0.02, "sure": True}
            ],
        },
        tuning={
            "rule": "lowest loss",
            "table": [
                {
                    "rank": 1,
                    "settings": {"hidden_units": 0, "l2": 5e-3, "optimizer": "adam"},
                    "loss": summary,
                    "accuracy": summary,
                },
                {"rank": 2, "settings": {"hidden_units": 64}, "loss": None, "accuracy": None},
            ],
        },
        exports={
            "onnx": {
                "path": "model.onnx",
                "bytes": 87_000_000,
                "largest_difference": 2e-5,
                "tolerance": 1e-3,
                "samples": 16,
                "samples_are": "photos",
            }
        },
    )
    for words in (
        "50.0% ± 2.0",
        "evaluation set without the 3 shared images: accuracy",
        "Measured without the 3 evaluation images that training has too.",
        "+3.1 ± 1.0 points",
        "+0.100 ± 0.020",
        "diverged",
        "0.005",
        "adam",
        "model.onnx, 87.0 MB",
        "of the 60 images of the test set",
        "The same on the evaluation set",
    ):
        assert words in page.text


def test_an_existing_model_has_no_training_to_tell_of():
    evaluation = evaluate(*noisy(50))
    metrics = metrics_of(evaluation)
    for name in ("history", "train", "options", "steps"):
        del metrics[name]
    page = Page(html_report(metrics, curves={}, thumbnail=lambda *_: None, created=""))
    assert "How it was trained" not in page.text


def test_many_classes_make_a_small_page():
    labels = tuple(f"class {i}" for i in range(1000))
    data = dataset(*([i] for i in range(1000)), labels=labels)
    evaluation = evaluate(np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32), data)
    text, page = page_of(evaluation)
    assert len(text) < 250_000
    assert "The 15 classes with the lowest F1" in page.text
    assert "all 1,000 classes with images, by name" in page.text


def test_classes_without_images_stand_apart():
    labels = tuple(f"class {i}" for i in range(60))
    data = dataset(*([i] for i in range(45)), labels=labels)
    _, page = page_of(evaluate(np.eye(60, dtype=np.float32)[:45] * 5, data))
    assert "15 classes without an image here: nothing is known about them class 45, class 46" in page.text


def test_the_page_names_model_and_data_and_begins_with_a_summary():
    evaluation = evaluate(*noisy(300), temperature=1.5, threshold=0.5)
    text, page = page_of(evaluation)
    accuracy = f"{100 * evaluation.numbers['accuracy']:.1f}%"
    assert f"<title>Report of out/training/model: 4 classes, {accuracy}" in text
    assert "trained on 1,234 images of out/train, judged on 300 images of out/eval" in page.text
    assert f"The model is right for {accuracy} of the 300 images of the evaluation set" in page.text
    assert "of these confident predictions are right" in page.text
    assert "Most often, it takes “" in page.text
    assert "hugs predict --model_dir out/training/model photo.jpg" in page.text
    assert "tf.saved_model.load('out/training/model')" in page.text
    _, page = page_of(evaluation, options={"output_path": "my out; rm -rf"})
    assert "hugs predict --model_dir 'my out; rm -rf/model' photo.jpg" in page.text


def test_a_threshold_that_nothing_reaches_and_one_that_all_reach_are_said_in_words():
    values, data = noisy(100)
    _, page = page_of(evaluate(values, data, threshold=1.0))
    assert "It calls none of its predictions confident: none has a score of 1.00 or more" in page.text
    assert "– of these" not in page.text
    _, page = page_of(evaluate(values, data, threshold=0.0))
    assert "It calls all of its predictions confident" in page.text


@pytest.mark.parametrize("temperature", [1.0, 9.0])
def test_a_temperature_that_makes_the_scores_worse_is_said(temperature):
    _, page = page_of(evaluate(*noisy(500), temperature=temperature))
    worse = temperature == 9.0
    assert ("On this set the temperature makes the scores worse" in page.text) == worse
    assert ("here the temperature made it larger" in page.text) == worse
    assert ("calibration error before and after temperature scaling" in page.text) == worse


def test_two_seeds_have_no_spread():
    runs = [{"seed": seed, "eval": {"accuracy": accuracy}} for seed, accuracy in ((0, 0.5), (1, 0.5))]
    seeds = {
        "seeds": [0, 1],
        "left_out": {"eval": 0},
        "note": "",
        "runs": runs,
        "eval": {"accuracy": {"mean": 0.5, "deviation": 0.0}},
    }
    _, page = page_of(evaluate(*noisy(50)), seeds=seeds)
    assert "accuracy 50.0% and 50.0%" in page.text
    assert "±" not in page.text


def test_many_warnings_are_folded_and_none_is_lost():
    text, page = page_of(evaluate(*noisy(50)), warnings=[f"warning {i}." for i in range(100)])
    assert "95 more warnings" in page.text
    assert all(f"<li>warning {i}.</li>" in text for i in range(100))
    assert text.index("warning 4.") < text.index("95 more warnings") < text.index("warning 5.")


def test_mistakes_of_which_the_model_is_not_sure_are_not_called_sure():
    data = dataset([0], [1], [2])
    for strength, called in ((0.3, "Mistakes, the highest scores first"), (5, "Surest mistakes")):
        _, page = page_of(evaluate(strength * np.eye(4, dtype=np.float32)[[1, 2, 3]], data))
        assert called in page.text
        assert ("it may be a label error" in page.text) == (strength == 5)


def test_images_that_were_trained_on_are_loud_and_the_accuracy_without_them_stands_beside():
    evaluation = evaluate(*noisy(50))
    evaluation.numbers["without_shared_images"] = {
        "left_out": 1,
        "examples": 49,
        "accuracy": 0.25,
        "accuracy_interval": [0.15, 0.39],
    }
    _, page = page_of(evaluation)
    assert "1 image of these 50 is in another set of this training too" in page.text
    assert "Without it, the accuracy is 25.0% of 49 images (between 15.0% and 39.0%" in page.text
    evaluation.numbers["without_shared_images"] = {"left_out": 50, "examples": 0, "accuracy": None}
    _, page = page_of(evaluation)
    assert "no image is left, so this page says nothing about new images" in page.text


def _check(**changes):
    counts = {"photos": 40, "of": 50, "chosen": 40, "not_found": 0, "not_decoded": 0, "sent_as_png": 0}
    measured = {
        "different_answers": 1,
        "largest_score_difference": 0.1234,
        "accuracy": 0.5,
        "accuracy_of_records": 0.55,
    }
    return {"eval": {**counts, "ran_out_of_time": False, **measured, "accuracy_interval": [0.4, 0.6], **changes}}


def test_the_exported_model_stands_beside_the_records():
    evaluation = evaluate(*noisy(50))
    origins = {"eval": [{"prefix": "p", "lists": [], "engines": [{"engine": "openvino", "precision": "int8"}]}]}
    origins["eval"][0]["engines"][0]["device"] = "cpu"
    model = {"head_digest": "", "takes_images": True, "libraries": ["tensorflow 2.21"], "precision": "float32"}
    _, page = page_of(evaluation, exported_model_on_photos=_check(), record_origins=origins, model=model)
    assert "computed by OpenVINO in int8. The exported model computes with tensorflow 2.21 in float32. It" in page.text
    assert "was run on 40 photos of these 50 images: it is right for 50.0% (between 40.0% and 60.0%" in page.text
    assert (
        "1 answer of it differs from those of the records, and the largest difference of a score is 0.12" in page.text
    )
    assert "chosen at even distances" in page.text
    _, page = page_of(
        evaluation, exported_model_on_photos=_check(different_answers=0, not_found=3, ran_out_of_time=True)
    )
    assert "All its answers are those of the records, and the largest" in page.text
    assert "The time was over before all 40 chosen photos were done. 3 photos could not be read here." in page.text
    _, page = page_of(evaluation, exported_model_on_photos={"eval": {"photos": 0, "why_not": "no <photos>"}})
    assert "The exported model itself was not run on photos: no <photos>." in page.text
    _, page = page_of(evaluation)
    assert "The exported model" not in page.text


def test_a_model_that_takes_embeddings_is_called_with_embeddings():
    _, page = page_of(evaluate(*noisy(50)), model={"head_digest": "", "takes_images": False})
    assert "hugs predict" not in page.text
    assert 'signatures["embeddings"]' in page.text


def test_charts_of_one_point_or_one_value_have_axes():
    chart = line_chart([Line(name="a", xs=[5], ys=[0.0])], title="t", x_name="x", y_name="y")
    assert "nan" not in chart
    assert len(re.findall("<circle", chart)) == 1
    assert "nan" not in heatmap(["a", "b"], [[0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("…/intact/cell_25-48.png", "…/<wbr>intact/<wbr>cell_<wbr>25-<wbr>48<wbr>.png"),
        ("<b>/a&b", "&lt;b&gt;/<wbr>a&amp;b"),
        ("a.b/no ending", "a.b/<wbr>no ending"),
        ("cat\u202egnp", r"cat\u202egnp"),
        ("", ""),
    ],
)
def test_long_names_break_at_their_parts_and_never_within_the_ending(text, markup):
    assert page_environment("trainer.reports").filters["breakable"](text) == markup
