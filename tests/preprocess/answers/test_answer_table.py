import csv
import io
import json

import numpy as np
import pytest

from preprocess.answers.answer_table import Answers, best_classes, make_answers, open_writer

NAMES = ("rose", 'the "real", one', "a\rb")


@pytest.mark.parametrize("classes", [3, 32, 33, 1000])
def test_the_best_classes_come_first_and_equal_ones_in_their_order(classes):
    scores = np.random.RandomState(0).randint(0, 2 * classes, (50, classes)).astype(np.float32)
    scores[:5] = np.sort(scores[:5])  # Without this, ties at the edge would be rare.
    for k in (1, 3):
        ids = best_classes(scores, k)
        taken = np.take_along_axis(scores, ids, axis=1)
        assert np.array_equal(taken, -np.sort(-scores, axis=1)[:, :k])
        same = taken[:, :-1] == taken[:, 1:]
        assert (ids[:, :-1] < ids[:, 1:])[same].all()


def answers(**changes):
    scores = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)
    told = {"names": NAMES, "top_k": 2, "threshold": 0.5, "several_labels": False, **changes}
    return make_answers(["ä,1.jpg", "2\n.jpg", "3.jpg"], scores, [(NAMES[1],), ("unknown",), ()], **told)


def test_names_of_any_kind_are_read_back_from_csv():
    stream = io.BytesIO()
    writer = open_writer(stream, "csv", names=NAMES, top_k=2)
    writer.write(answers())
    writer.write(answers())
    writer.close()
    rows = list(csv.DictReader(io.StringIO(stream.getvalue().decode(), newline="")))
    assert len(rows) == 6
    assert rows[:3] == rows[3:]
    assert [row["image_uri"] for row in rows[:3]] == ["ä,1.jpg", "2\n.jpg", "3.jpg"]
    assert [row["label"] for row in rows[:3]] == [NAMES[1], NAMES[0], NAMES[2]]
    assert [row["score"] for row in rows[:3]] == ["0.700000", "0.500000", "0.800000"]
    assert [row["confident"] for row in rows[:3]] == ["1", "1", "1"]
    # A label that is no class says nothing of the answer.
    assert [row["correct"] for row in rows[:3]] == ["1", "", ""]
    assert rows[1]["label_2"] == NAMES[1]


def test_scores_of_any_size_are_written_with_six_decimals():
    values = np.concatenate([np.linspace(0, 1, 1001), [1e-7, 5e-7, 0.9999995, 0.123456499, -0.0]])
    for scores in (values, np.append(values, [-2.5, 12345.678])):
        scores = np.round(scores, 6)
        texts = [line.split(",")[2] for line in csv_of(scores).splitlines()[1:]]
        assert texts == [f"{score + 0.0:.6f}" for score in scores]


def csv_of(scores):
    stream = io.BytesIO()
    n = len(scores)
    ids = np.zeros((n, 1), np.int64)
    told = {"scores": scores, "confident": scores > 0, "top_ids": ids, "top_scores": scores[:, np.newaxis]}
    found = Answers(uris=["u"] * n, labels=["rose"] * n, given=[()] * n, correct=[None] * n, **told)
    open_writer(stream, "csv", names=NAMES, top_k=1).write(found)
    return stream.getvalue().decode()


def test_json_lines_hold_the_same_as_parquet():
    pq = pytest.importorskip("pyarrow.parquet")
    streams = {kind: io.BytesIO() for kind in ("jsonl", "parquet")}
    for kind, stream in streams.items():
        writer = open_writer(stream, kind, names=NAMES, top_k=2)
        writer.write(answers())
        writer.close()
    lines = [json.loads(line) for line in streams["jsonl"].getvalue().splitlines()]
    assert pq.read_table(streams["parquet"]).to_pylist() == lines
    assert lines[0]["predictions"][0] == {"label": NAMES[1], "score": 0.7, "id": 1}


def test_several_labels_are_all_that_reach_the_cut():
    found = answers(several_labels=True, threshold=0.75)
    assert found.labels == [NAMES[1], NAMES[0], NAMES[2]]
    assert found.confident.tolist() == [False, False, True]
    scores = np.array([[0.9, 0.6, 0.5], [0.1, 0.2, 0.3]], np.float32)
    found = make_answers(["1", "2"], scores, [NAMES, ()], names=NAMES, top_k=1, threshold=0, several_labels=True)
    assert found.labels == [" | ".join(NAMES), ""]
    assert found.correct == [True, None]
