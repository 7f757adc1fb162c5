from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn import metrics

from tests.support.evaluation_sets import dataset, logits, noisy
from trainer.evaluation.metrics import evaluate, measure, wilson_interval
from trainer.evaluation.scores import scores_of


def numbers(some_logits, data, **settings):
    settings.setdefault("train_support", np.ones(len(data.labels), int))
    result = evaluate(some_logits, data, **settings).numbers
    json.dumps(result, allow_nan=False)
    return result


def test_a_single_label_set():
    data = dataset([0], [0], [0], [1], [2])
    result = numbers(logits(0, 0, 1, 1, 1), data, train_support=np.array([5, 4, 3, 0]))
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
        "f1": pytest.approx(0.8),
        "roc_auc": 5 / 6,  # Two of three above both others, one tied with them.
        "average_precision": pytest.approx((2 + 3 / 5) / 3),
    }
    # A class without examples that is never predicted: nothing to divide by, and nothing divided.
    assert {result["per_class"][3][name] for name in ("precision", "recall", "f1", "roc_auc")} == {None}


def test_one_of_several_labels_is_right_and_the_matrix_takes_the_first():
    result = numbers(logits(2, 0), dataset([1, 2], [1, 2]))
    assert result["accuracy"] == 0.5
    assert result["confusion_matrix"]["counts"][1] == [1, 0, 1, 0]
    assert result["multi_label"] == 2
    expected = -(0.5 * np.log(0.7) + 0.5 * np.log(0.1) + np.log(0.1)) / 2
    assert measure(logits(2, 0), dataset([1, 2], [1, 2])).loss == pytest.approx(expected, rel=1e-6)


def test_a_certain_mistake_has_a_finite_loss():
    certain = np.array([[1e4, 0, 0, 0]], np.float32)
    assert measure(certain, dataset([1])).loss == pytest.approx(1e4)
    assert numbers(certain, dataset([1]))["loss"] == pytest.approx(1e4)


def test_logits_may_come_in_pieces_of_any_size(monkeypatch):
    some_logits, data = noisy(500)
    whole, in_one = measure(some_logits, data), numbers(some_logits, data, temperature=1.7)
    monkeypatch.setattr("trainer.evaluation.metrics._ROWS_AT_A_TIME", 37)
    pieces = [some_logits[:1], some_logits[1:300], some_logits[300:]]
    in_pieces = measure(iter(pieces), data)
    assert (in_pieces.accuracy, in_pieces.loss) == pytest.approx((whole.accuracy, whole.loss))
    again = numbers(iter(pieces), data, temperature=1.7)
    assert again["loss"] == pytest.approx(in_one["loss"])
    for name in ("accuracy", "top_k", "per_class", "confusion_matrix", "mistakes"):
        assert again[name] == in_one[name]
    with pytest.raises(ValueError, match="300 rows of logits for 500 examples"):
        measure(pieces[:2], data)


def test_measures_are_those_of_scikit_learn():
    some_logits, data = noisy(400, skill=1.0)
    result = numbers(some_logits, data)
    true, predicted, scores = data.first_label_ids, some_logits.argmax(axis=1), scores_of(some_logits, "single")
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(true, predicted, average="macro")
    assert result["macro"] == pytest.approx(
        {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "roc_auc": metrics.roc_auc_score(true, scores, multi_class="ovr"),
            "average_precision": metrics.average_precision_score(np.eye(4)[true], scores),
        },
        abs=1e-6,
    )
    for k in (2, 3):
        assert result["top_k"][str(k)] == pytest.approx(metrics.top_k_accuracy_score(true, scores, k=k))
    assert result["confusion_matrix"]["counts"] == metrics.confusion_matrix(true, predicted).tolist()


def test_multi_label_measures_are_those_of_scikit_learn():
    some_logits, data = noisy(400, skill=1.0, label_mode="multi")
    result = numbers(some_logits, data)
    member, given = data.label_sets(), some_logits >= 0
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(member, given))
    for average in ("macro", "micro"):
        scored = metrics.precision_recall_fscore_support(member, given, average=average)
        found = [result[average][name] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(scored[:3])
    scores = scores_of(some_logits, "multi")
    assert result["macro"]["roc_auc"] == pytest.approx(metrics.roc_auc_score(member, scores), abs=1e-6)
    log_loss = -np.mean(np.where(member, np.log(scores), np.log(1 - scores)))
    assert result["loss"] == pytest.approx(log_loss)
    assert measure(some_logits, data).loss == pytest.approx(log_loss)
    assert measure(some_logits, data).accuracy == result["accuracy"]


def test_classes_that_are_given_up_pull_macro_precision_down():
    assert numbers(logits(0, 0), dataset([0], [1]))["macro"]["precision"] == 0.25


@pytest.mark.parametrize(
    ("right", "examples", "interval"), [(0, 10, (0, 0.2775)), (8, 10, (0.4902, 0.9433)), (1, 1, (0.2065, 1))]
)
def test_the_wilson_interval(right, examples, interval):
    assert wilson_interval(right, examples) == pytest.approx(interval, abs=1e-4)


def test_the_temperature_changes_scores_and_no_answers():
    some_logits, data = noisy(300)
    cold, hot = numbers(some_logits, data), numbers(some_logits, data, temperature=4.0)
    for name in ("accuracy", "confusion_matrix", "top_k"):
        assert cold[name] == hot[name]
    assert hot["loss"] == hot["calibration"]["loss_after"] > cold["loss"] == hot["calibration"]["loss_before"]
    assert hot["calibration"]["error_after"] > 0.1 > hot["calibration"]["error_before"]


def test_the_threshold_is_measured():
    sure = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0.1, 0, 0, 0]], np.float32)
    result = numbers(sure, dataset([0], [2], [1]), threshold=0.9)
    assert result["answers"] == {"threshold": 0.9, "coverage": pytest.approx(2 / 3), "precision": 0.5}


def test_the_surest_mistakes_come_first_and_name_their_photo():
    sure = np.array([[1, 0, 0, 0], [0, 9, 0, 0], [0, 0, 5, 0]], np.float32)
    first, second = numbers(sure, dataset([0], [2, 3, 2], [1]))["mistakes"]
    assert first == {
        "uri": "1.jpg",
        "image_digest": None,
        "labels": ["blue", "grey"],
        "kind": "wrong",
        "about": "green",
        "sureness": pytest.approx(1 / (1 + 3 * math.exp(-9))),
    }
    assert second["uri"] == "2.jpg"


def test_a_multi_label_mistake_may_be_a_label_missed():
    sure = np.array([[5, -1, -9, -9], [5, 5, -9, -9]], np.float32)
    (mistake,) = numbers(sure, dataset([0, 1], [0, 1], label_mode="multi"))["mistakes"]
    assert (mistake["kind"], mistake["about"]) == ("missed", "green")
    assert mistake["sureness"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_many_classes_and_mistakes_stay_few_numbers():
    labels = tuple(f"class {i}" for i in range(300))
    data = dataset(*([i % 300] for i in range(900)), labels=labels)
    wrong = np.zeros((900, 300), np.float32)
    wrong[:, 7] = np.linspace(1, 2, 900)
    result = numbers(wrong, data)
    assert result["confusion_matrix"]["counts"] is None
    assert len(result["top_confusions"]) == 20
    assert result["top_confusions"][0] == {"label": "class 0", "predicted": "class 7", "count": 3}
    assert len(result["mistakes"]) == 60
    assert result["mistakes"][0]["uri"] == "899.jpg"


def test_the_account_of_another_order_of_labels_is_the_same():
    some_logits, data = noisy(200)
    turned = dataclasses.replace(data, label_ids=3 - data.label_ids, labels=data.labels[::-1])
    one, other = numbers(some_logits, data), numbers(some_logits[:, ::-1], turned)
    assert one["per_class"] == other["per_class"][::-1]
    assert one["loss"] == pytest.approx(other["loss"])
