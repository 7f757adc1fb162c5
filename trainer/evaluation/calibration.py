"""Calibration: measures whether scores match the accuracy, and fits the temperature and the threshold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.data.label_mode import LabelMode
from trainer.evaluation.scores import scores_of

_NUM_BINS = 15
_MIN_INVERSE_TEMPERATURE, _MAX_INVERSE_TEMPERATURE = 0.05, 20.0

# Only one number is fitted, so more examples than these make the fit slower but not better.
_MAX_SAMPLE_LOGITS = 4_000_000


def calibration_rows(dataset: EmbeddingDataset) -> np.ndarray:
    """int64: evenly spread rows, enough to fit temperature and threshold. A set of usual size gives all its rows."""
    count = max(2000, _MAX_SAMPLE_LOGITS // len(dataset.labels))
    if len(dataset) <= count:
        return np.arange(len(dataset))
    return np.linspace(0, len(dataset) - 1, count).astype(np.int64)


def slopes_and_curvatures(
    logits: np.ndarray, targets: np.ndarray, inverse_temperature: float, label_mode: LabelMode
) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of the loss of each example by the inverse temperature. The loss is convex in it.

    If the labels are drawn by the scores, the curvature of an example is also the variance of its slope.

    Args:
      logits: float64, shape [n, num_labels].
      targets: float, of the same shape.
      inverse_temperature: positive; the logits are multiplied by it.
      label_mode: of the data set.

    Returns:
      float64 and float64, of shape [n].
    """
    scores = scores_of(logits, label_mode, temperature=1.0 / inverse_temperature)
    slope = ((scores - targets) * logits).sum(axis=1)
    if label_mode == "multi":
        curvature = (scores * (1.0 - scores) * logits**2).sum(axis=1)
    else:
        mean = (scores * logits).sum(axis=1)
        curvature = (scores * (logits - mean[:, None]) ** 2).sum(axis=1)
    return slope, curvature


def fit_temperature(logits: np.ndarray, dataset: EmbeddingDataset, *, rows: np.ndarray | None = None) -> float:
    """The temperature at which the scores have the lowest loss.

    The labels are smoothed by the weight of one example, as Platt (1999) does for sigmoids. Without this, the best
    temperature for a set without any wrong prediction would be 0.

    Args:
      logits: float, shape [n, num_labels].
      dataset: the examples, at least one.
      rows: int64, shape [n]: the examples that the logits belong to; None for all, in order.

    Returns:
      A number from 0.05 to 20; 1 leaves the scores unchanged.
    """
    rows = np.arange(len(dataset)) if rows is None else rows
    logits = logits.astype(np.float64)
    uniform = 0.5 if dataset.label_mode == "multi" else 1.0 / logits.shape[1]
    targets = (dataset.targets(rows) * len(rows) + uniform) / (len(rows) + 1)
    low, high = _MIN_INVERSE_TEMPERATURE, _MAX_INVERSE_TEMPERATURE
    inverse = 1.0
    for _ in range(60):
        slopes, curvatures = slopes_and_curvatures(logits, targets, inverse, dataset.label_mode)
        slope, curvature = float(slopes.mean()), float(curvatures.mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        # Takes Newton's step if it stays between the bounds, else the geometric mean of the bounds.
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - inverse) < 1e-7 * inverse:
            break
        inverse = following
    return 1.0 / inverse


class Reliability:
    """Compares scores with the accuracy, in bins of equal width. Takes a data set in parts."""

    def __init__(self) -> None:
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._scores = np.zeros(_NUM_BINS)
        self._right = np.zeros(_NUM_BINS)

    def update(self, scores: np.ndarray, right: np.ndarray) -> None:
        """Adds predictions: their scores, float in [0, 1], and whether they are right, bool, of the same shape."""
        bins = np.minimum((scores * _NUM_BINS).astype(np.int64), _NUM_BINS - 1).ravel()
        self._counts += np.bincount(bins, minlength=_NUM_BINS)
        self._scores += np.bincount(bins, scores.ravel(), minlength=_NUM_BINS)
        self._right += np.bincount(bins, right.ravel(), minlength=_NUM_BINS)

    def error(self) -> float:
        """The expected calibration error: the mean difference between score and accuracy in a bin, in [0, 1]."""
        return float(np.abs(self._scores - self._right).sum() / self._counts.sum())

    def to_json(self) -> list[dict[str, Any]]:
        """The bins that hold predictions: bounds, count, mean score, share of right predictions."""
        return [
            {
                "low": i / _NUM_BINS,
                "high": (i + 1) / _NUM_BINS,
                "count": int(self._counts[i]),
                "mean_score": float(self._scores[i] / self._counts[i]),
                "accuracy": float(self._right[i] / self._counts[i]),
            }
            for i in np.flatnonzero(self._counts)
        ]


def scores_and_correctness(
    scores: np.ndarray, member: np.ndarray, label_mode: LabelMode
) -> tuple[np.ndarray, np.ndarray]:
    """The scores whose calibration is measured, and whether each prediction was right.

    Args:
      scores: float64, shape [n, num_labels].
      member: bool, shape [n, num_labels]: which labels each example has.
      label_mode: "single" judges the best score of each example, "multi" every score.

    Returns:
      float64 and bool, of the same shape.
    """
    if label_mode == "multi":
        return scores, member
    best = scores.argmax(axis=1)
    each = np.arange(len(scores))
    return scores[each, best], member[each, best]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold on the best score, and its effect. Below it, the model says that it is not confident.

    Attributes:
      threshold: in [0, 1]; a prediction is confident if its score is at least this.
      coverage: share of the examples with a confident prediction, in [0, 1].
      precision: share of the confident predictions that are right; None if there is none.
    """

    threshold: float
    coverage: float
    precision: float | None


def at_threshold(confidence: np.ndarray, right: np.ndarray, threshold: float) -> Threshold:
    """The effect of a threshold on predictions: their best scores, float [n], and whether they are right, bool [n]."""
    given = confidence >= threshold
    precision = float(right[given].mean()) if given.any() else None
    return Threshold(threshold=threshold, coverage=float(given.mean()), precision=precision)


def choose_threshold(
    scores: np.ndarray, dataset: EmbeddingDataset, min_precision: float, *, rows: np.ndarray | None = None
) -> Threshold:
    """The threshold with the most confident predictions of which at least the share `min_precision` is right.

    Args:
      scores: float64, shape [n, num_labels].
      dataset: the examples, at least one. A prediction is right if the best label is one of the example's labels.
      min_precision: in (0, 1].
      rows: int64, shape [n]: the examples that the scores belong to; None for all, in order.

    Returns:
      The threshold is 0 if all predictions together reach `min_precision`, and 1 if no threshold reaches it.
    """
    rows = np.arange(len(dataset)) if rows is None else rows
    best = scores.argmax(axis=1)
    each = np.arange(len(scores))
    confidence = scores[each, best]
    right = dataset.targets(rows)[each, best] > 0
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    precise = np.cumsum(right[order]) >= min_precision * np.arange(1, len(order) + 1)
    # A threshold can only lie where the next score is lower.
    cuts = np.flatnonzero(precise & np.append(ranked[:-1] > ranked[1:], True))
    if not len(cuts):
        return at_threshold(confidence, right, 1.0)
    last = int(cuts[-1])
    if last == len(ranked) - 1:
        return at_threshold(confidence, right, 0.0)
    # It lies halfway between two scores, so that float32 rounding in the exported model changes no decision.
    return at_threshold(confidence, right, float((ranked[last] + ranked[last + 1]) / 2))
