from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from tests.support.evaluation_sets import dataset, logits
from trainer.reports.predictions_csv import PredictionsWriter


def rows_of(some_logits, data, **settings):
    stream = io.StringIO()
    settings = {"temperature": 1.0, "threshold": 0.5, **settings}
    writer = PredictionsWriter(stream, data.labels, **settings)
    writer.write("eval", [some_logits[:1], some_logits[1:]], data, location="/photos/{}".format)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_one_line_an_example():
    first, second = rows_of(logits(1, 0), dataset([1], [2, 3]))
    assert (first["set"], first["uri"], first["label"], first["prediction"]) == ("eval", "0.jpg", "green", "green")
    assert (first["correct"], first["confident"], second["correct"]) == ("1", "1", "0")
    assert second["label"] == "blue | grey"
    assert (first["location"], second["location"]) == ("/photos/0.jpg", "/photos/1.jpg")
    assert list(first)[-1] == "location"
    assert float(first["score"]) == pytest.approx(0.7, abs=1e-5) == float(first["score_green"])
    assert sum(float(first[f"score_{label}"]) for label in ("red", "green", "blue", "grey")) == pytest.approx(
        1, abs=1e-4
    )


def test_temperature_and_threshold_are_those_of_the_model():
    (row,) = rows_of(logits(1), dataset([1]), temperature=3.0, threshold=0.6)
    assert float(row["score"]) == pytest.approx(7 ** (1 / 3) / (7 ** (1 / 3) + 3), abs=1e-5)
    assert row["confident"] == "0"


def test_several_labels_may_be_predicted_or_none():
    some_logits = np.array([[3, 3, -3, -3], [-3, -3, -3, -3]], np.float32)
    both, none = rows_of(some_logits, dataset([0, 1], [0], label_mode="multi"))
    assert (both["prediction"], both["correct"]) == ("red | green", "1")
    assert (none["prediction"], none["correct"], none["confident"]) == ("", "0", "0")


def test_commas_quotes_and_line_breaks_come_back_whole():
    labels = ('a,"b"', "c\nd")
    data = dataset([0], labels=labels)
    data.uris[0] = 'x,"y"\n.jpg'
    (row,) = rows_of(np.array([[0, 1]], np.float32), data)
    assert (row["uri"], row["label"], row["prediction"]) == ('x,"y"\n.jpg', labels[0], labels[1])


def test_carriage_returns_come_back_whole_and_lines_end_with_a_line_feed():
    stream = io.StringIO(newline="")
    data = dataset([0])
    data.uris[0] = "a\rb\r\n"
    PredictionsWriter(stream, data.labels, temperature=1.0, threshold=0.5).write(
        "eval", [logits(1)], data, location=lambda uri: ""
    )
    assert next(csv.DictReader(io.StringIO(stream.getvalue(), newline="")))["uri"] == "a\rb\r\n"
    assert stream.getvalue().count("\r\n") == 1


def test_of_many_labels_the_best_five_are_told():
    labels = tuple(f"class {i}" for i in range(300))
    some_logits = np.zeros((1, 300), np.float32)
    some_logits[0, [7, 9, 11]] = [3, 5, 4]
    (row,) = rows_of(some_logits, dataset([9], labels=labels))
    assert len(row) == 7 + 10 + 1
    assert [row[f"label_{rank}"] for rank in (1, 2, 3)] == ["class 9", "class 11", "class 7"]
    assert row["score_1"] == row["score"]
