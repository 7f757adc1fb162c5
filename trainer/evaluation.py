"""How good a model is: accuracy, loss, per-class counts and the confusion matrix."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from trainer.dataset import EmbeddingDataset

# Bounds the memory where examples and classes are many.
_ROWS_AT_A_TIME = 8192


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the scores: float64, shape [n, num_classes], from logits of that shape."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """Accuracy in [0, 1] and cross-entropy in nats, both means over examples."""

    accuracy: float
    loss: float


def measure(logits: np.ndarray, dataset: EmbeddingDataset) -> Measures:
    """The two numbers to follow during training.

    A prediction is right if it is one of the example's labels. The loss is the cross-entropy against the
    example's labels in equal parts.

    Args:
      logits: float32, shape [n, num_labels], for all examples of the data set in order.
      dataset: with at least one example.
    """
    right = 0
    loss = 0.0
    for start in range(0, len(dataset), _ROWS_AT_A_TIME):
        part = logits[start : start + _ROWS_AT_A_TIME]
        targets = dataset.targets(np.arange(start, start + len(part)))
        right += int((targets[np.arange(len(part)), part.argmax(axis=1)] > 0).sum())
        loss -= float((targets * log_softmax(part)).sum())
    return Measures(accuracy=right / len(dataset), loss=loss / len(dataset))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def evaluate(logits: np.ndarray, dataset: EmbeddingDataset, *, train_support: np.ndarray) -> dict[str, Any]:
    """The full account of a model on a data set, as JSON.

    Args:
      logits: float32, shape [n, num_labels], for all examples of the data set in order.
      dataset: with at least one example.
      train_support: int64, shape [num_labels]: training examples of each label.

    Returns:
      `accuracy` and `loss` as `measure` gives them; `examples`, `unlabeled`, `multi_label`: counts;
      `majority_class` and `majority_share`: the label most common in this data set, and the accuracy of
      always answering it; `per_class`: for each label in order of ids its counts, precision and recall
      (null where there is nothing to divide by); `confusion_matrix`: `counts[i][j]` examples whose first
      label is i were predicted as j.
    """
    measures = measure(logits, dataset)
    predicted = logits.argmax(axis=1)
    num_labels = len(dataset.labels)
    support = dataset.support()
    times_predicted = np.bincount(predicted, minlength=num_labels)
    right = np.zeros(len(dataset), bool)
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.label_splits))
    right[owners[dataset.label_ids == predicted[owners]]] = True
    correct = np.bincount(predicted[right], minlength=num_labels)
    confusion = np.zeros((num_labels, num_labels), np.int64)
    np.add.at(confusion, (dataset.first_label_ids, predicted), 1)
    majority = int(support.argmax())
    return {
        "accuracy": measures.accuracy,
        "loss": measures.loss,
        "examples": len(dataset),
        "unlabeled": dataset.num_unlabeled,
        "multi_label": dataset.num_multi_label,
        "majority_class": dataset.labels[majority],
        "majority_share": float(support[majority] / len(dataset)),
        "per_class": [
            {
                "label": label,
                "train_support": int(train_support[i]),
                "support": int(support[i]),
                "predicted": int(times_predicted[i]),
                "correct": int(correct[i]),
                "precision": _share(int(correct[i]), int(times_predicted[i])),
                "recall": _share(int(correct[i]), int(support[i])),
            }
            for i, label in enumerate(dataset.labels)
        ],
        "confusion_matrix": {
            "rows": "first label of the example",
            "columns": "predicted label",
            "labels": list(dataset.labels),
            "counts": confusion.tolist(),
        },
    }
