"""The exported model itself, measured on photos of the held-out sets."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from preprocess.images.decode import decode_image
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from tests.support.evaluation_sets import dataset
from trainer import task
from trainer.data.photos import PhotoFinder
from trainer.evaluation.assess import Calibration
from trainer.export.classifier import Prediction
from trainer.export.photo_check import check_on_photos, chosen_rows

COLOURS = ((230, 60, 60), (60, 230, 60), (60, 60, 230))
AS_IT_IS = Calibration(temperature=1.0, threshold=0.0)


def test_photos_are_chosen_at_even_distances():
    for count, at_most in ((1000, 10), (7, 10), (10, 10), (3, 1), (1_000_003, 200)):
        rows = chosen_rows(count, at_most)
        assert len(set(rows.tolist())) == min(count, at_most)
        distances = np.diff(np.sort(rows))
        assert not len(distances) or distances.max() - distances.min() <= 1
    assert len(chosen_rows(10, 0)) == len(chosen_rows(0, 10)) == 0
    first = np.sort(chosen_rows(1000, 100)[:20])
    assert first[0] < 250
    assert first[-1] > 750
    assert chosen_rows(1000, 100).tolist() == chosen_rows(1000, 100).tolist()


class _Model:
    """Answers with the label that the content of the "photo" names."""

    def __init__(self, num_labels: int):
        self._num_labels = num_labels
        self.images: list[bytes] = []

    def predict(self, images):
        self.images += images
        return [self._answer(image) for image in images]

    def _answer(self, image):
        colour = decode_image(image)[0, 0]
        scores = np.full(self._num_labels, 0.1, np.float32)
        scores[int(colour.argmax())] = 0.7
        error = "unsupported_format: TIFF" if image.startswith(b"II*") else ""
        return Prediction(label="", label_id=-1, scores=scores * (not error), error=error)


@pytest.fixture
def photo_files(tmp_path):
    """Writes photos, one for each given colour, and gives their paths."""

    def write(*colours: int, kind: str = "PNG") -> list[str]:
        paths = []
        for number, colour in enumerate(colours):
            path = tmp_path / f"{kind}-{number}"
            Image.new("RGB", (30, 20), COLOURS[colour]).save(path, kind)
            paths.append(str(path))
        return paths

    return write


def examples(uris, labels):
    """Examples whose records answer with their labels."""
    data = dataset(*([label] for label in labels))
    return dataclasses.replace(data, uris=np.array(uris, object))


def records_answer(*answers: int):
    def logits_of(piece):
        rows = np.asarray(piece)[:, 0].astype(int)
        scores = np.full((len(rows), 4), 0.1)
        scores[np.arange(len(rows)), np.array(answers)[rows]] = 0.7
        return np.log(scores).astype(np.float32)

    return logits_of


def numbered(data):
    """The embedding of an example is its row number."""
    from trainer.data.embeddings import MemoryEmbeddings

    rows = np.arange(len(data), dtype=np.float32)[:, np.newaxis]
    return dataclasses.replace(data, embeddings=MemoryEmbeddings(rows))


def check(data, logits_of, **changes):
    model = _Model(4)
    loads = []
    settings = {"logits_of": logits_of, "calibration": AS_IT_IS, "at_most": 100, **changes}
    found = check_on_photos(lambda: loads.append(1) or model, {"eval": data}, {"eval": PhotoFinder()}, **settings)[
        "eval"
    ]
    return found, model, loads


def test_answers_of_the_model_and_of_the_records_are_compared(photo_files):
    data = numbered(examples(photo_files(0, 1, 2, 0), [0, 1, 1, 0]))
    # The records are wrong about the last photo only; the model about the third.
    found, _, loads = check(data, records_answer(0, 1, 1, 3))
    assert found["photos"] == found["chosen"] == found["of"] == 4
    assert found["different_answers"] == 2
    assert found["accuracy"] == found["accuracy_of_records"] == 0.75
    assert found["accuracy_interval"][0] < 0.75 < found["accuracy_interval"][1]
    assert found["largest_score_difference"] == pytest.approx(0.6, abs=1e-6)
    assert loads == [1]
    same, _, _ = check(data, records_answer(0, 1, 2, 0))
    assert same["different_answers"] == 0
    assert same["largest_score_difference"] < 1e-6


def test_what_cannot_be_read_or_decoded_is_counted_and_the_rest_measured(photo_files, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    uris = [*photo_files(0, 1), str(tmp_path / "missing.png"), str(tmp_path / "text.png"), *photo_files(2, kind="TIFF")]
    found, model, _ = check(numbered(examples(uris, [0, 1, 0, 0, 2])), records_answer(0, 1, 3, 3, 2))
    assert (found["photos"], found["not_found"], found["not_decoded"], found["sent_as_png"]) == (3, 1, 1, 1)
    assert (found["accuracy"], found["different_answers"]) == (1.0, 0)
    assert model.images[-1].startswith(b"\x89PNG")
    _, model, _ = check(numbered(examples(photo_files(2, kind="TIFF"), [2])), records_answer(2), size=128)
    assert Image.open(io.BytesIO(model.images[-1])).size == (128, 128)


def test_without_photos_the_model_is_not_loaded_and_the_reason_is_given(tmp_path, photo_files):
    gone = numbered(examples([str(tmp_path / "a.png")], [0]))
    found, _, loads = check(gone, records_answer(0))
    assert (found["photos"], found["why_not"], loads) == (0, "the photos of the records cannot be read here", [])
    there = numbered(examples(photo_files(0), [0]))
    found, _, loads = check(there, records_answer(0), at_most=0)
    assert (found["chosen"], found["why_not"], loads) == (0, "--check_photos is 0", [])
    found, _, _ = check(there, records_answer(0), limit_sec=0)
    assert found["ran_out_of_time"]
    assert "within" in found["why_not"]


def test_several_labels_are_compared_as_a_set(photo_files):
    data = numbered(examples(photo_files(0, 1), [0, 1]))
    data = dataclasses.replace(data, label_mode="multi")

    def logits_of(piece):
        rows = np.asarray(piece)[:, 0].astype(int)
        scores = np.full((len(rows), 4), 0.1)
        scores[np.arange(len(rows)), rows] = 0.7
        scores[rows == 1, 3] = 0.6
        return np.log(scores / (1 - scores)).astype(np.float32)

    found, _, _ = check(data, logits_of)
    assert (found["accuracy"], found["accuracy_of_records"], found["different_answers"]) == (1.0, 0.5, 1)


@pytest.fixture
def trained(tmp_path, write_set):
    """Arguments of a run whose evaluation set has photos: a list, its photos, and records that differ in two places."""
    rng = np.random.default_rng(0)
    classes = np.arange(90) % 3
    embeddings = rng.normal(-0.5, 0.1, (90, 3)).astype(np.float32)
    embeddings[np.arange(90), classes] += 0.9
    train = write_set(str(tmp_path / "preproc" / "train"), embeddings, [[int(c)] for c in classes])
    photos, uris = tmp_path / "photos", []
    photos.mkdir()
    (tmp_path / "lists").mkdir()
    seen = []
    for number in range(12):
        encoded = io.BytesIO()
        Image.new("RGB", (40, 30), COLOURS[number % 3]).save(encoded, "JPEG", quality=95)
        (photos / f"{number}.jpg").write_bytes(encoded.getvalue())
        uris.append(f"../photos/{number}.jpg")
        seen.append(decode_image(encoded.getvalue()).mean(axis=(0, 1)) / 127.5 - 1)
    seen = np.array(seen, np.float32)
    seen[[1, 5]] = seen[[0, 0]]  # as a low precision would: two records are taken for another class
    evaluation = write_set(
        str(tmp_path / "preproc" / "eval"), seen, [[n % 3] for n in range(12)], uris=uris, contents=[None] * 12
    )
    for prefix, engine, precision in ((train, "tensorflow", "float32"), (evaluation, "openvino", "int8")):
        with open(sidecar_path(prefix, REPORT_NAME), "w", encoding="utf-8") as stream:
            engines = [{"engine": engine, "precision": precision, "device": "cpu", "libraries": [f"{engine} 1.2"]}]
            name = os.path.basename(prefix)
            json.dump({"input": [str(tmp_path / "lists" / f"{name}.csv")], "engines": engines}, stream)
    return [
        *("--train_data_paths", f"{train}*", "--eval_data_paths", f"{evaluation}*", "--write_predictions"),
        *("--output_path", str(tmp_path / "training"), "--max_steps", "60", "--eval_every_steps", "20"),
        *("--hidden_units", "16", "--batch_size", "30", "--learning_rate", "0.03"),
    ]


def test_a_run_says_what_the_exported_model_answers_and_what_made_the_records(
    mean_colour_backbone, trained, tmp_path, capsys
):
    task.main(trained)
    printed = capsys.readouterr()
    with open(tmp_path / "training" / "metrics.json", encoding="utf-8") as stream:
        metrics = json.load(stream)
    found = metrics["exported_model_on_photos"]["eval"]
    assert (found["photos"], found["different_answers"]) == (12, 2)
    assert found["accuracy"] == 1.0
    assert found["accuracy_of_records"] == metrics["eval"]["accuracy"] == pytest.approx(10 / 12)
    (origin,) = metrics["record_origins"]["eval"]
    assert origin["lists"] == [str(tmp_path / "lists" / "eval.csv")]
    assert [(engine["engine"], engine["precision"]) for engine in origin["engines"]] == [("openvino", "int8")]
    assert (metrics["model"]["engine"], metrics["model"]["precision"]) == ("tensorflow", "float32")
    (line,) = (line for line in printed.out.splitlines() if "exported model itself" in line)
    assert line.startswith(
        "  the exported model itself, run on 12 of these 12 images: accuracy 100.0% (95% interval 75.8 to 100.0%), "
        "their records (computed by OpenVINO in int8) 83.3%; 2 answers differ, largest score difference 0."
    )
    assert "not all computed in the same way (those of train by TensorFlow in float32, those of eval by" in printed.err
    page = " ".join(re.sub("<[^>]*>", "", (tmp_path / "training" / "report.html").read_text()).split())
    assert "computed by OpenVINO in int8. The exported model computes with tensorflow" in page
    assert "2 answers of it differ from those of the records" in page
    with open(tmp_path / "training" / "predictions.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["location"] for row in rows] == [str(tmp_path / "photos" / f"{number}.jpg") for number in range(12)]

    again = tmp_path / "again"
    evaluate = ["--write_predictions", "--output_path", str(again), "--model_dir", str(tmp_path / "training" / "model")]
    task.main([*evaluate, *trained[2:4], "--check_photos", "6"])
    evaluation = json.loads((again / "evaluation.json").read_text())["exported_model_on_photos"]["eval"]
    assert (evaluation["photos"], evaluation["of"]) == (6, 12)
    assert "the exported model itself, run on 6 of these 12 images" in capsys.readouterr().out
    task.main([*evaluate, *trained[2:4], "--check_photos", "0"])
    assert "the exported model was not run on photos: --check_photos is 0" in capsys.readouterr().out
