"""How good a model is on a data set, in one pass over its logits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from trainer.data.dataset import LabeledExamples
from trainer.data.label_mode import LabelMode
from trainer.evaluation.calibration import Reliability, at_threshold, scores_and_correctness
from trainer.evaluation.ranking import RankingMeasures, ThresholdCounts
from trainer.evaluation.scores import losses_of, scores_of

# Limits the memory if there are many examples and classes.
_ROWS_AT_A_TIME = 8192
_LOGITS_AT_A_TIME = 1 << 20

_TOP_K = (2, 3, 5, 10)
_MAX_TOP_CONFUSIONS = 20
_MAX_MISTAKES = 60
_MAX_RIGHT_ANSWERS = 12
# The confusion matrix of a thousand classes would have a million numbers, most of them 0.
_MAX_MATRIX_CLASSES = 100
_Z_95 = 1.959963984540054

# In a multi-label set, a class is predicted if its score is at least this.
MULTI_LABEL_CUT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """Accuracy in [0, 1] and cross-entropy in nats; both are means over the examples."""

    accuracy: float
    loss: float


def _parts(logits: np.ndarray | Iterable[np.ndarray], dataset: LabeledExamples) -> Iterator[tuple[int, np.ndarray]]:
    """Splits logits, given whole or in pieces, into parts that fit in memory; gives the first row of each part too."""
    row = 0
    count = max(1, min(_ROWS_AT_A_TIME, _LOGITS_AT_A_TIME // len(dataset.labels)))
    for piece in [logits] if isinstance(logits, np.ndarray) else logits:
        for start in range(0, len(piece), count):
            part = piece[start : start + count]
            yield row, part
            row += len(part)
    if row != len(dataset):
        raise ValueError(f"{row} rows of logits for {len(dataset)} examples")


def predicted_labels(scores: np.ndarray, label_mode: LabelMode) -> np.ndarray:
    """The labels that are predicted for some scores: bool, of the same shape, [n, num_labels]."""
    if label_mode == "multi":
        return scores >= MULTI_LABEL_CUT
    predicted = np.zeros(scores.shape, bool)
    predicted[np.arange(len(scores)), scores.argmax(axis=1)] = True
    return predicted


def right_predictions(predicted: np.ndarray, labels: np.ndarray, label_mode: LabelMode) -> np.ndarray:
    """Which predictions are right, as in `measure`: bool [n].

    Args:
      predicted: from `predicted_labels`.
      labels: bool [n, num_labels]: which labels each example has.
      label_mode: as in `predicted_labels`.
    """
    return (predicted == labels).all(axis=1) if label_mode == "multi" else (predicted & labels).any(axis=1)


def measure(logits: np.ndarray | Iterable[np.ndarray], dataset: LabeledExamples) -> Measures:
    """The two numbers that are followed during training.

    A prediction is right if it is one of the example's labels. The loss is the cross-entropy with the labels as
    targets; several labels share the target in equal parts. In a multi-label set, a prediction is a set of labels. It
    is right if it is exactly the example's set, and the loss is the mean of the cross-entropies of all labels.

    Args:
      logits: float32, shape [n, num_labels], for all examples of the data set in order; or pieces of that.
      dataset: the examples, at least one.
    """
    right = 0
    loss = 0.0
    for start, part in _parts(logits, dataset):
        targets = dataset.targets(np.arange(start, start + len(part)))
        if dataset.label_mode == "multi":
            # The score reaches `MULTI_LABEL_CUT` where the logit reaches 0.
            right += int(((part >= 0) == (targets > 0)).all(axis=1).sum())
        else:
            right += int((targets[np.arange(len(part)), part.argmax(axis=1)] > 0).sum())
        loss += float(losses_of(part, targets, dataset.label_mode).sum())
    return Measures(accuracy=right / len(dataset), loss=loss / len(dataset))


def wilson_interval(right: int, examples: int) -> tuple[float, float]:
    """The 95% confidence interval of an accuracy (Wilson, 1927). It is also valid for few examples and near 0 and 1.

    Args:
      right: how many predictions are right.
      examples: how many examples there are, at least 1.
    """
    share = right / examples
    z2 = _Z_95**2 / examples
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z_95 * math.sqrt(share * (1 - share) / examples + z2 / (4 * examples)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results of a model on a data set.

    Attributes:
      numbers: JSON; see `evaluate`.
      best_label_ids: int32, shape [n]: for each example, the label with the best score.
      threshold_counts: the counts for precision-recall curves.
    """

    numbers: dict[str, Any]
    best_label_ids: np.ndarray
    threshold_counts: ThresholdCounts


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _f1(correct: int, predicted: int, support: int) -> float | None:
    """The F1 of a class; None if the class has no example and was never predicted, so that F1 is undefined."""
    return _share(2 * correct, predicted + support)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class _Tally:
    """Collects the results of all parts: a few numbers for each example, and counts for each class."""

    def __init__(self, dataset: LabeledExamples, temperature: float):
        count, num_labels = len(dataset), len(dataset.labels)
        self._dataset = dataset
        self._temperature = temperature
        self.loss = self.loss_before = 0.0
        self.best = np.empty(count, np.int32)
        self.best_score = np.empty(count)
        self.best_is_right = np.empty(count, bool)
        self.right = np.empty(count, bool)
        # For each example, the label about which the model was most wrong, and by how much; -1 if nothing is wrong.
        self.blamed = np.full(count, -1, np.int32)
        self.blame = np.zeros(count)
        self.within_k = {k: 0 for k in _TOP_K if k < num_labels}
        self.predicted = np.zeros(num_labels, np.int64)
        self.correct = np.zeros(num_labels, np.int64)
        self.support = np.zeros(num_labels, np.int64)
        self.before, self.after = Reliability(), Reliability()
        self.ranking = RankingMeasures(examples=count, num_labels=num_labels)

    def update(self, start: int, logits: np.ndarray) -> None:
        mode = self._dataset.label_mode
        each = np.arange(len(logits))
        rows = slice(start, start + len(logits))
        targets = self._dataset.targets(start + each)
        member = targets > 0
        scores = scores_of(logits, mode, temperature=self._temperature)
        self.loss += float(losses_of(logits, targets, mode, temperature=self._temperature).sum())
        self.loss_before += float(losses_of(logits, targets, mode).sum())
        self.before.update(*scores_and_correctness(scores_of(logits, mode), member, mode))
        self.after.update(*scores_and_correctness(scores, member, mode))
        self.ranking.update(scores, member)

        best = logits.argmax(axis=1)
        self.best[rows] = best
        self.best_score[rows] = scores[each, best]
        self.best_is_right[rows] = member[each, best]
        if mode == "multi":
            given = logits >= 0  # The temperature moves no score across `MULTI_LABEL_CUT`.
            wrongness = np.where(given != member, np.abs(scores - member), 0.0)
            self.right[rows] = ~(given != member).any(axis=1)
        else:
            given = np.zeros(logits.shape, bool)
            given[each, best] = True
            wrongness = np.where(given & ~member, scores, 0.0)
            self.right[rows] = member[each, best]
        wrong = ~self.right[rows]
        self.blamed[rows][wrong] = wrongness.argmax(axis=1)[wrong]
        self.blame[rows] = wrongness.max(axis=1)
        self.predicted += given.sum(axis=0)
        self.correct += (given & member).sum(axis=0)
        self.support += member.sum(axis=0)
        # How many labels have a higher score than the best label of the example.
        own = np.where(member, logits, -np.inf).max(axis=1, keepdims=True)
        rank = (logits > own).sum(axis=1)
        for k in self.within_k:
            self.within_k[k] += int(((rank < k) & member.any(axis=1)).sum())


def _mistakes(tally: _Tally, dataset: LabeledExamples) -> list[dict[str, Any]]:
    """The mistakes about which the model was most sure, surest first. Wrong labels in the data show up here."""
    wrong = np.flatnonzero(~tally.right)
    if len(wrong) > _MAX_MISTAKES:
        kept = np.argpartition(-tally.blame[wrong], _MAX_MISTAKES)[:_MAX_MISTAKES]
        wrong = np.sort(wrong[kept])
    worst = wrong[np.argsort(-tally.blame[wrong], kind="stable")]
    mistakes = []
    for row in worst:
        ids = dataset.label_ids[dataset.label_splits[row] : dataset.label_splits[row + 1]]
        blamed = int(tally.blamed[row])
        mistakes.append(
            {
                "uri": str(dataset.uris[row]),
                "image_digest": dataset.image_digest_of(row),
                "labels": dataset.labels_of(row),
                # In a multi-label set, the mistake may be a missed label. Then the model is sure that it does not
                # apply.
                "kind": "missed" if blamed in ids else "wrong",
                "about": dataset.labels[blamed],
                "sureness": float(tally.blame[row]),
            }
        )
    return mistakes


def _right_answers(tally: _Tally, dataset: LabeledExamples) -> list[dict[str, Any]]:
    """Examples that the model recognizes: for each class the one with the best score, the largest classes first."""
    right = np.flatnonzero(tally.right & tally.best_is_right)
    # The best score of each class comes first; equal scores stay in the order of the examples.
    order = right[np.lexsort((-tally.best_score[right], tally.best[right]))]
    _, first = np.unique(tally.best[order], return_index=True)
    rows = order[first]
    rows = rows[np.argsort(-tally.support[tally.best[rows]], kind="stable")][:_MAX_RIGHT_ANSWERS]
    return [
        {
            "uri": str(dataset.uris[row]),
            "image_digest": dataset.image_digest_of(row),
            "labels": dataset.labels_of(row),
            "about": dataset.labels[tally.best[row]],
            "sureness": float(tally.best_score[row]),
        }
        for row in rows.tolist()
    ]


def _confusions(tally: _Tally, dataset: LabeledExamples) -> dict[str, Any]:
    num_labels = len(dataset.labels)
    rows, row_names, column_names = dataset.first_label_ids, "first label of the example", "predicted label"
    if dataset.label_mode == "multi":
        rows = np.where(tally.best_is_right, tally.best, rows)
        row_names = "best label where it is one of the example's, else the first of these"
        column_names = "label with the best score"
    pairs, counts = np.unique(rows.astype(np.int64) * num_labels + tally.best, return_counts=True)
    true_ids, predicted_ids = np.divmod(pairs, num_labels)
    off = np.flatnonzero(true_ids != predicted_ids)
    top = off[np.argsort(-counts[off], kind="stable")][:_MAX_TOP_CONFUSIONS]
    matrix = None
    if num_labels <= _MAX_MATRIX_CLASSES:
        dense = np.zeros((num_labels, num_labels), np.int64)
        dense[true_ids, predicted_ids] = counts
        matrix = dense.tolist()
    return {
        "confusion_matrix": {
            "rows": row_names,
            "columns": column_names,
            "labels": list(dataset.labels),
            "counts": matrix,
        },
        "top_confusions": [
            {
                "label": dataset.labels[true_ids[i]],
                "predicted": dataset.labels[predicted_ids[i]],
                "count": int(counts[i]),
            }
            for i in top
        ],
    }


def evaluate(
    logits: np.ndarray | Iterable[np.ndarray],
    dataset: LabeledExamples,
    *,
    train_support: np.ndarray | None = None,
    temperature: float = 1.0,
    threshold: float = 0.0,
) -> Evaluation:
    """Measures a model on a data set.

    Args:
      logits: float32, shape [n, num_labels], for all examples of the data set in order; or pieces of that.
      dataset: the examples, at least one.
      train_support: int64, shape [num_labels]: training examples of each label; None if they are unknown.
      temperature: the logits are divided by it before they become scores.
      threshold: if the best score is below it, the model says that it is not confident.

    Returns:
      The numbers: `label_mode`; `accuracy` as `measure` gives it, `accuracy_interval` (95%, Wilson), `loss` after the
      temperature; `top_k`: share of examples with one of their labels among the best k; `examples`, `unlabeled`,
      `multi_label`: counts; `majority_class` and `majority_share`: the most common label in this data set, and the
      share of examples that have it; `macro`: means over the classes with examples; `micro`: over all predictions
      together; `calibration`: the expected calibration error and the loss before and after the temperature, and
      the bins; `answers`: the effect of the threshold on the predictions; `per_class`: for each label in order of ids
      (null where the divisor is 0); `confusion_matrix`: in `counts[i][j]` examples, label i was predicted as j; null
      for more than 100 labels; `top_confusions`; `mistakes`: those about which the model was surest, with their URIs
      and the digests of their images (`image_digest_of`); `right_answers`: for some classes, the right prediction with
      the best score.
    """
    tally = _Tally(dataset, temperature)
    for start, part in _parts(logits, dataset):
        tally.update(start, part)
    count = len(dataset)
    per_class: list[dict[str, Any]] = []
    for i, (label, (roc_auc, average_precision)) in enumerate(zip(dataset.labels, tally.ranking.areas(), strict=True)):
        correct, predicted, support = int(tally.correct[i]), int(tally.predicted[i]), int(tally.support[i])
        per_class.append(
            {
                "label": label,
                "train_support": None if train_support is None else int(train_support[i]),
                "support": support,
                "predicted": predicted,
                "correct": correct,
                "precision": _share(correct, predicted),
                "recall": _share(correct, support),
                "f1": _f1(correct, predicted, support),
                "roc_auc": roc_auc,
                "average_precision": average_precision,
            }
        )
    present = [row for row in per_class if row["support"]]
    majority = int(tally.support.argmax())
    right = int(tally.right.sum())
    correct, predicted, support = (int(a.sum()) for a in (tally.correct, tally.predicted, tally.support))
    numbers = {
        "label_mode": dataset.label_mode,
        "accuracy": right / count,
        "accuracy_interval": list(wilson_interval(right, count)),
        "loss": tally.loss / count,
        "examples": count,
        "unlabeled": dataset.num_unlabeled,
        "multi_label": dataset.num_multi_label,
        "majority_class": dataset.labels[majority],
        "majority_share": float(tally.support[majority] / count),
        "top_k": {str(k): within / count for k, within in tally.within_k.items()},
        "macro": {
            # A class that is never predicted has precision 0 here, as in scikit-learn, so that it does not look good.
            name: _mean(0.0 if row[name] is None and name == "precision" else row[name] for row in present)
            for name in ("precision", "recall", "f1", "roc_auc", "average_precision")
        },
        "micro": {
            "precision": _share(correct, predicted),
            "recall": _share(correct, support),
            "f1": _f1(correct, predicted, support),
        },
        "calibration": {
            "temperature": temperature,
            "error_before": tally.before.error(),
            "error_after": tally.after.error(),
            "loss_before": tally.loss_before / count,
            "loss_after": tally.loss / count,
            "bins_before": tally.before.to_json(),
            "bins_after": tally.after.to_json(),
        },
        "answers": dataclasses.asdict(at_threshold(tally.best_score, tally.best_is_right, threshold)),
        "per_class": per_class,
        **_confusions(tally, dataset),
        "mistakes": _mistakes(tally, dataset),
        "right_answers": _right_answers(tally, dataset),
    }
    return Evaluation(numbers=numbers, best_label_ids=tally.best, threshold_counts=tally.ranking.threshold_counts())
