"""Judges a head: calibrates it on the evaluation set, then measures it on every set of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.calibration import Threshold, calibration_rows, choose_threshold
from trainer.evaluation.metrics import Evaluation, evaluate
from trainer.evaluation.scores import scores_of
from trainer.evaluation.temperature_choice import TemperatureChoice, choose_temperature

# A function from embeddings, float32 [m, embedding_size], to logits, float32 [m, num_labels].
LogitsOf = Callable[[np.ndarray], np.ndarray]

_OF_THE_REST = ("accuracy", "accuracy_interval", "loss", "macro", "micro", "top_k", "answers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The two numbers that are chosen on the evaluation set and stored in the exported model.

    Attributes:
      temperature: the model divides its logits by it.
      threshold: if the best score is below it, the model says that it is not confident.
    """

    temperature: float
    threshold: float


def logits_in_pieces(logits_of: LogitsOf, dataset: EmbeddingDataset) -> Iterator[np.ndarray]:
    """The logits of all examples of a data set in order, in pieces."""
    return map(logits_of, dataset.embeddings.pieces())


def logits_of_some(logits_of: LogitsOf, dataset: EmbeddingDataset, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """The logits of the examples that are chosen (bool [n]) in order, in pieces."""
    start = 0
    for piece in dataset.embeddings.pieces():
        part = piece[chosen[start : start + len(piece)]]
        start += len(piece)
        if len(part):
            yield logits_of(part)


def calibrate(
    logits_of: LogitsOf, evaluation: EmbeddingDataset, *, min_precision: float
) -> tuple[Calibration, Threshold, TemperatureChoice]:
    """Chooses the temperature, and then the threshold for scores at this temperature.

    Args:
      logits_of: the head.
      evaluation: the evaluation set, with at least one example.
      min_precision: the precision that confident predictions should reach; see `choose_threshold`.

    Returns:
      The calibration to export, the effect of the threshold on the evaluation set, and why the temperature is that.
    """
    rows = calibration_rows(evaluation)
    kept, start = [], 0
    for piece in logits_in_pieces(logits_of, evaluation):
        kept.append(piece[rows[(rows >= start) & (rows < start + len(piece))] - start])
        start += len(piece)
    logits = np.concatenate(kept)
    choice = choose_temperature(logits, evaluation, rows=rows)
    scores = scores_of(logits, evaluation.label_mode, temperature=choice.temperature)
    threshold = choose_threshold(scores, evaluation, min_precision, rows=rows)
    return Calibration(temperature=choice.temperature, threshold=threshold.threshold), threshold, choice


def assess(
    logits_of: LogitsOf,
    data: Mapping[str, EmbeddingDataset],
    calibration: Calibration,
    *,
    train_support: np.ndarray | None,
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Evaluation]:
    """Evaluates a head, as it will be exported, on some data sets. Each data set is read once.

    A data set of which some examples are to be left out is read twice: it is evaluated with them and without them.

    Args:
      logits_of: the head.
      data: the data sets by name.
      calibration: the calibration of the exported model.
      train_support: int64, shape [num_labels]: training examples of each label; None if they are unknown.
      left_out: by the name of a data set, the examples that also belong to a set that the model was made with: int64
        [m]. If there are any, the numbers of the evaluation get `without_shared_images`; see `_numbers_without`.
    """
    evaluations = {}
    for name, dataset in data.items():
        evaluations[name] = evaluate(
            logits_in_pieces(logits_of, dataset),
            dataset,
            train_support=train_support,
            temperature=calibration.temperature,
            threshold=calibration.threshold,
        )
        rows = (left_out or {}).get(name, ())
        if len(rows):
            evaluations[name].numbers["without_shared_images"] = _numbers_without(
                logits_of, dataset, np.asarray(rows), calibration
            )
    return evaluations


def _numbers_without(
    logits_of: LogitsOf, dataset: EmbeddingDataset, rows: np.ndarray, calibration: Calibration
) -> dict[str, Any]:
    """The numbers of a data set without some of its examples.

    Returns:
      JSON: `left_out`, the number of these examples; `examples`, the number of the others; and of the others
      `accuracy`, `accuracy_interval`, `loss`, `macro`, `micro`, `top_k`, `answers` and the two errors of `calibration`,
      as `evaluate` gives them. If no other is left, these are None.
    """
    kept = np.ones(len(dataset), bool)
    kept[rows] = False
    if not kept.any():
        return {"left_out": len(rows), "examples": 0, **dict.fromkeys((*_OF_THE_REST, "calibration"))}
    numbers = evaluate(
        logits_of_some(logits_of, dataset, kept),
        dataset.examples_at(np.flatnonzero(kept)),
        temperature=calibration.temperature,
        threshold=calibration.threshold,
    ).numbers
    return {
        "left_out": len(rows),
        "examples": numbers["examples"],
        **{name: numbers[name] for name in _OF_THE_REST},
        "calibration": {name: numbers["calibration"][name] for name in ("error_before", "error_after")},
    }
