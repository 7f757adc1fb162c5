"""How well scores separate a class from the others at any threshold: ROC-AUC, average precision, PR curves."""

from __future__ import annotations

import dataclasses

import numpy as np

# The number of thresholds of the curves, from 0 to 1 in equal steps, as in TensorBoard's own code.
NUM_THRESHOLDS = 201

# Up to this number, all scores are kept (80 MB) and sorted. If there are more, they are counted in bins of log-odds
# with a width of 0.01, which changes an area by about 0.001 at most.
_MAX_EXACT_SCORES = 20_000_000
_LOG_ODDS_LIMIT = 20.0
_NUM_BINS = 4000


def _areas(positives: np.ndarray, negatives: np.ndarray) -> tuple[float | None, float | None]:
    """ROC-AUC and average precision from the counts at each distinct score, highest score first; None if undefined."""
    total_positives, total_negatives = int(positives.sum()), int(negatives.sum())
    if not total_positives:
        return None, None
    right = np.cumsum(positives)
    wrong = np.cumsum(negatives)
    seen = np.maximum(right + wrong, 1)
    average_precision = float((positives * (right / seen)).sum() / total_positives)
    if not total_negatives:
        return None, average_precision
    # For each negative, count the positives with a higher score, and half of the positives with the same score.
    above = (negatives * (right - positives / 2)).sum()
    return float(above / (total_positives * total_negatives)), average_precision


def areas_of_scores(scores: np.ndarray, positive: np.ndarray) -> tuple[float | None, float | None]:
    """ROC-AUC and average precision of one class.

    Args:
      scores: float, shape [n]; a higher score means that the class is more likely.
      positive: bool, shape [n]: the examples of the class.

    Returns:
      Both in [0, 1]; None if there is no positive example or, for the ROC-AUC, no negative one.
    """
    values, places = np.unique(scores, return_inverse=True)
    positives = np.bincount(places[positive], minlength=len(values))[::-1]
    negatives = np.bincount(places[~positive], minlength=len(values))[::-1]
    return _areas(positives, negatives)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdCounts:
    """Right and wrong predictions at `NUM_THRESHOLDS` thresholds from 0 to 1; int64 [classes, thresholds] each."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    true_negatives: np.ndarray
    false_negatives: np.ndarray


class RankingMeasures:
    """Takes the scores of a data set in parts. Its memory is limited, whatever the number of examples and classes."""

    def __init__(self, *, examples: int, num_labels: int, max_exact_scores: int = _MAX_EXACT_SCORES):
        self._exact = examples * num_labels <= max_exact_scores
        self._filled = 0
        self._num_labels = num_labels
        self._log_odds = np.empty((num_labels, examples if self._exact else 0), np.float32)
        self._member = np.empty((num_labels, examples if self._exact else 0), bool)
        self._bins = np.zeros((num_labels, 2, 0 if self._exact else _NUM_BINS), np.int64)
        self._thresholds = np.zeros((num_labels, 2, NUM_THRESHOLDS), np.int64)

    def update(self, scores: np.ndarray, member: np.ndarray) -> None:
        """Adds examples.

        Args:
          scores: float64 in [0, 1], shape [m, num_labels].
          member: bool, shape [m, num_labels]: which labels each example has.
        """
        tiny = np.finfo(np.float64).tiny
        # Log-odds are kept instead of scores: in float32 they stay different where scores round to 0 or 1.
        odds = np.log(np.maximum(scores, tiny)) - np.log(np.maximum(1.0 - scores, np.finfo(np.float64).epsneg / 2))
        if self._exact:
            end = self._filled + len(scores)
            self._log_odds[:, self._filled : end] = odds.T
            self._member[:, self._filled : end] = member.T
            self._filled = end
        else:
            clipped = np.clip(odds, -_LOG_ODDS_LIMIT, np.nextafter(_LOG_ODDS_LIMIT, 0))
            bins = ((clipped + _LOG_ODDS_LIMIT) * (_NUM_BINS / (2 * _LOG_ODDS_LIMIT))).astype(np.int64)
            self._count(self._bins, bins, member)
        self._count(self._thresholds, np.minimum((scores * (NUM_THRESHOLDS - 1)).astype(np.int64), 200), member)

    def _count(self, into: np.ndarray, bins: np.ndarray, member: np.ndarray) -> None:
        width = into.shape[2]
        flat = (np.arange(self._num_labels) * 2 + member) * width + bins
        into += np.bincount(flat.ravel(), minlength=into.size).reshape(into.shape)

    def areas(self) -> list[tuple[float | None, float | None]]:
        """ROC-AUC and average precision of each class, with all other classes as negatives."""
        if self._exact:
            return [
                areas_of_scores(self._log_odds[label, : self._filled], self._member[label, : self._filled])
                for label in range(self._num_labels)
            ]
        return [_areas(counts[1, ::-1], counts[0, ::-1]) for counts in self._bins]

    def threshold_counts(self) -> ThresholdCounts:
        """The counts that thresholds on the score of each class would give."""
        at_least = self._thresholds[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
        totals = self._thresholds.sum(axis=2, keepdims=True)
        return ThresholdCounts(
            true_positives=at_least[:, 1],
            false_positives=at_least[:, 0],
            true_negatives=(totals - at_least)[:, 0],
            false_negatives=(totals - at_least)[:, 1],
        )
