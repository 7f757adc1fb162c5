from __future__ import annotations

import json

import numpy as np
import pytest

from trainer.dataset import EmbeddingDataset
from trainer.embeddings import MemoryEmbeddings
from trainer.evaluation import evaluate, measure
from trainer.report import confusion_table, per_class_table

LABELS = ("red", "green", "blue", "grey")


def dataset(*label_ids: list[int]) -> EmbeddingDataset:
    splits = np.cumsum([0, *map(len, label_ids)])
    return EmbeddingDataset(
        uris=np.array([str(i) for i in range(len(label_ids))], dtype=object),
        embeddings=MemoryEmbeddings(np.zeros((len(label_ids), 3), np.float32)),
        label_ids=np.concatenate(label_ids).astype(np.int64),
        label_splits=splits,
        labels=LABELS,
        num_unlabeled=0,
    )


def logits(*predicted: int) -> np.ndarray:
    return np.log(np.full((len(predicted), 4), 0.1) + 0.6 * np.eye(4)[list(predicted)]).astype(np.float32)


def test_a_single_label_set():
    result = evaluate(logits(0, 0, 1, 1, 1), dataset([0], [0], [0], [1], [2]), train_support=np.array([5, 4, 3, 0]))
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["loss"] == pytest.approx(-(3 * np.log(0.7) + 2 * np.log(0.1)) / 5, rel=1e-6)
    assert (result["majority_class"], result["majority_share"]) == ("red", 0.6)
    assert result["confusion_matrix"]["counts"] == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert result["per_class"][0] == {
        "label": "red",
        "train_support": 5,
        "support": 3,
        "predicted": 2,
        "correct": 2,
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
    }
    # A class without examples that is never predicted: nothing to divide by, and nothing divided.
    assert result["per_class"][3]["precision"] is None
    assert result["per_class"][3]["recall"] is None
    json.dumps(result, allow_nan=False)


def test_one_of_several_labels_is_right_and_the_matrix_takes_the_first():
    result = evaluate(logits(2, 0), dataset([1, 2], [1, 2]), train_support=np.ones(4, int))
    assert result["accuracy"] == 0.5
    assert result["confusion_matrix"]["counts"][1] == [1, 0, 1, 0]
    assert result["multi_label"] == 2
    expected = -(0.5 * np.log(0.7) + 0.5 * np.log(0.1) + np.log(0.1)) / 2
    assert measure(logits(2, 0), dataset([1, 2], [1, 2])).loss == pytest.approx(expected, rel=1e-6)


def test_a_certain_mistake_has_a_finite_loss():
    certain = np.array([[1e4, 0, 0, 0]], np.float32)
    assert measure(certain, dataset([1])).loss == pytest.approx(1e4)


def test_tables_show_what_cannot_be_divided():
    result = evaluate(logits(0, 1), dataset([0], [2]), train_support=np.array([1, 1, 1, 0]))
    table = per_class_table(result)
    assert next(line for line in table.splitlines() if "grey" in line).split() == [
        "grey",
        "0",
        "0",
        "0",
        "–",
        "–",
    ]
    assert "2 blue" in confusion_table(result)
