"""What a head is worth: made honest on the evaluation set, then measured on every set of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.calibration import Threshold, calibration_rows, choose_threshold, fit_temperature
from trainer.evaluation.metrics import Evaluation, evaluate
from trainer.evaluation.scores import scores_of

# Embeddings, float32 [m, embedding_size], to logits, float32 [m, num_labels].
LogitsOf = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is chosen on the evaluation set and goes into the exported model.

    Attributes:
      temperature: the logits are divided by it.
      threshold: below this best score the model says that it does not know.
    """

    temperature: float
    threshold: float


def logits_in_pieces(logits_of: LogitsOf, dataset: EmbeddingDataset) -> Iterator[np.ndarray]:
    """The logits of all examples of a data set in order, some at a time."""
    return map(logits_of, dataset.embeddings.pieces())


def calibrate(
    logits_of: LogitsOf, evaluation: EmbeddingDataset, *, min_precision: float
) -> tuple[Calibration, Threshold]:
    """Fits the temperature, and with it chooses the threshold.

    Args:
      logits_of: the head.
      evaluation: with at least one example.
      min_precision: what the answers that are given should reach; see `choose_threshold`.

    Returns:
      What to export, and what the threshold did to the examples that it was chosen on.
    """
    rows = calibration_rows(evaluation)
    kept, start = [], 0
    for piece in logits_in_pieces(logits_of, evaluation):
        kept.append(piece[rows[(rows >= start) & (rows < start + len(piece))] - start])
        start += len(piece)
    logits = np.concatenate(kept)
    temperature = fit_temperature(logits, evaluation, rows=rows)
    scores = scores_of(logits, evaluation.label_mode, temperature=temperature)
    threshold = choose_threshold(scores, evaluation, min_precision, rows=rows)
    return Calibration(temperature=temperature, threshold=threshold.threshold), threshold


def assess(
    logits_of: LogitsOf,
    data: Mapping[str, EmbeddingDataset],
    calibration: Calibration,
    *,
    train_support: np.ndarray | None,
) -> dict[str, Evaluation]:
    """Evaluates a head as it will be exported on some data sets, going once through each.

    Args:
      logits_of: the head.
      data: the data sets by name.
      calibration: of the exported model.
      train_support: int64, shape [num_labels]: training examples of each label; None where they are not known.
    """
    return {
        name: evaluate(
            logits_in_pieces(logits_of, dataset),
            dataset,
            train_support=train_support,
            temperature=calibration.temperature,
            threshold=calibration.threshold,
        )
        for name, dataset in data.items()
    }
