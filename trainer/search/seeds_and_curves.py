"""What one number hides: how far it depends on the seed, and what more images would do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.metrics import measure
from trainer.evaluation.scores import scores_of
from trainer.options import TrainingOptions
from trainer.search.cross_validation import fit, sample_in_memory, take_rows
from trainer.training.head import predict_logits

# Each point is twice the one before: accuracy grows about linearly with the logarithm of the examples.
_HALVINGS = 4
_CURVE_SEEDS = 3
# Evaluations. On real embeddings (style, 647 examples) every number was the same as with all of the 1,000 steps, after
# 31 seconds and not 82.
_PATIENCE = 10
# Fewer teach nothing that a larger part would not teach at once.
_MIN_EXAMPLES_PER_CLASS = 2
_RESAMPLES = 200
_RESAMPLED_AT_A_TIME = 10
# A difference of fewer standard errors may be luck.
_SURE_ERRORS = 2.0


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


def over_seeds(
    train: EmbeddingDataset, evaluation: EmbeddingDataset, test: EmbeddingDataset | None, options: TrainingOptions
) -> dict[str, Any]:
    """Trains the same head with several seeds: those from `options.seed` on, `options.seeds` of them.

    Args:
      train: to learn from.
      evaluation: to choose each head's checkpoint by, and to measure.
      test: to measure; None if there is none.
      options: of the run.

    Returns:
      JSON. `seeds`; `runs`: `accuracy` in [0, 1] and `loss` in nats for each of them; `eval`, `test`: `mean` and
      `deviation` (of the sample, null for one seed) of both over all of them.

    Raises:
      InputError: training diverged.
    """
    measured = {"eval": evaluation, **({"test": test} if test is not None else {})}
    seeds = [(options.seed + offset) % 2**31 for offset in range(options.seeds)]
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        head = fit(train, evaluation, dataclasses.replace(options, seed=seed)).head
        found = {
            name: dataclasses.asdict(measure(predict_logits(head, dataset.embeddings.pieces()), dataset))
            for name, dataset in measured.items()
        }
        runs.append({"seed": seed, **found})
    return {
        "note": "the deviation is that of initial weights, order of examples and dropout, not of the images",
        "seeds": seeds,
        "runs": runs,
        **{
            name: {key: _mean_and_deviation([run[name][key] for run in runs]) for key in ("accuracy", "loss")}
            for name in measured
        },
    }


def nested_parts(dataset: EmbeddingDataset, *, halvings: int, seed: int) -> list[np.ndarray]:
    """Rows of ever larger parts of a data set, each class halved alike.

    Args:
      dataset: of n examples.
      halvings: the smallest part has n / 2**halvings of them.
      seed: the same one gives the same parts.

    Returns:
      int64, ascending; each holds the one before, the last holds all. Of a class (an example's first label), a part
      holds at least two examples, as far as there are so many. Parts that are equal because of that come once.
    """
    random = np.random.default_rng(seed)
    labels = dataset.first_label_ids
    orders = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    parts: list[np.ndarray] = []
    for halving in range(halvings, -1, -1):
        rows = np.sort(np.concatenate([o[: max(_MIN_EXAMPLES_PER_CLASS, round(len(o) / 2**halving))] for o in orders]))
        if not parts or len(rows) > len(parts[-1]):
            parts.append(rows)
    return parts


def _predicted_sets(logits: np.ndarray, dataset: EmbeddingDataset) -> np.ndarray:
    """bool, shape [n, num_labels]: the labels that the model answers."""
    if dataset.label_mode == "multi":
        return scores_of(logits, "multi") >= 0.5
    answered = np.zeros(logits.shape, bool)
    answered[np.arange(len(logits)), logits.argmax(axis=1)] = True
    return answered


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Point:
    """Heads of one size of training set, all judged by the same images.

    Attributes:
      support: int64 [num_labels]: training examples of each label.
      right: float64 [n]: share of the heads that answered each image rightly.
      found: float64 [n, num_labels]: share of the heads that answered a label which the image has.
      answered: float64 [n, num_labels]: share of the heads that answered a label.
    """

    examples: int
    support: np.ndarray
    accuracies: list[float]
    losses: list[float]
    right: np.ndarray
    found: np.ndarray
    answered: np.ndarray


def _measure_part(
    part: EmbeddingDataset, evaluation: EmbeddingDataset, options: TrainingOptions, seeds: Sequence[int]
) -> _Point:
    members = evaluation.label_sets()
    accuracies, losses = [], []
    right = np.zeros(len(evaluation))
    found = np.zeros(members.shape)
    answered = np.zeros(members.shape)
    for seed in seeds:
        head = fit(part, evaluation, dataclasses.replace(options, seed=seed)).head
        logits = predict_logits(head, evaluation.embeddings.pieces())
        measures = measure(logits, evaluation)
        accuracies.append(measures.accuracy)
        losses.append(measures.loss)
        answers = _predicted_sets(logits, evaluation)
        hits = answers & members
        right += (answers == members).all(axis=1) if evaluation.label_mode == "multi" else hits.any(axis=1)
        found += hits
        answered += answers
    return _Point(
        examples=len(part),
        support=part.support(),
        accuracies=accuracies,
        losses=losses,
        right=right / len(seeds),
        found=found / len(seeds),
        answered=answered / len(seeds),
    )


def _f1(weights: np.ndarray, point: _Point, members: np.ndarray) -> np.ndarray:
    """F1 of each label, float64 [m, num_labels], for m weightings of the images, float64 [m, n]."""
    total = weights @ (point.answered + members)
    return np.divide(2 * (weights @ point.found), total, out=np.zeros_like(total), where=total > 0)


def _class_gains(half: _Point, full: _Point, evaluation: EmbeddingDataset, *, seed: int) -> list[dict[str, Any]]:
    """What the second half of the training images did for each class, the most promising class first."""
    members = evaluation.label_sets().astype(np.float64)
    everything = np.ones((1, len(evaluation)))
    before, after = (_f1(everything, point, members)[0] for point in (half, full))
    # Both parts by the same resampled images: what an image is worth to both cancels.
    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(0, _RESAMPLES, _RESAMPLED_AT_A_TIME):
        weights = random.multinomial(
            len(evaluation), np.full(len(evaluation), 1 / len(evaluation)), size=_RESAMPLED_AT_A_TIME
        ).astype(np.float64)
        resampled.append(_f1(weights, full, members) - _f1(weights, half, members))
    errors = np.concatenate(resampled).std(axis=0, ddof=1)
    support = members.sum(axis=0)
    gains = [
        {
            "label": label,
            "train_support": int(full.support[i]),
            "support": int(support[i]),
            "f1_half": float(before[i]),
            "f1": float(after[i]),
            "gain": float(after[i] - before[i]),
            "gain_standard_error": float(errors[i]),
            "sure": bool(after[i] - before[i] > _SURE_ERRORS * errors[i]),
        }
        for i, label in enumerate(evaluation.labels)
        if support[i]
    ]
    return sorted(gains, key=lambda gain: (-gain["gain"], gain["f1"]))


def learning_curve(train: EmbeddingDataset, evaluation: EmbeddingDataset, options: TrainingOptions) -> dict[str, Any]:
    """Accuracy against the number of training examples, and which class more images would help.

    Heads are trained on a sixteenth, an eighth ... and all of the training examples of each class, with a few seeds.

    Args:
      train: to learn from. Of a streamed set, as many examples as `sample_in_memory` takes.
      evaluation: to choose each head's checkpoint by, and to measure.
      options: of the run; without early stopping, that of 10 evaluations.

    Returns:
      JSON. `points`: for each part `examples`, and mean and deviation over the seeds of `accuracy` and `loss`.
      `last_doubling`: what the second half of the examples added to the accuracy, with the standard error of its
      images; `more_images_help`: "yes" if that is more than two standard errors, "no" if not even two of them above
      it are 0.01, else "unclear". `classes`: for each label that the evaluation set has, its F1 with half and
      with all of the examples, the gain and its standard error over the images; where another doubling promises most
      comes first. `sure` gains are more than two standard errors. With a single point all that follows is left out.

    Raises:
      InputError: training diverged.
    """
    seeds = [(options.seed + offset) % 2**31 for offset in range(_CURVE_SEEDS)]
    options = dataclasses.replace(options, early_stopping=options.early_stopping or _PATIENCE)
    if not train.embeddings.in_memory:
        train = sample_in_memory(train, options)
    parts = nested_parts(train, halvings=_HALVINGS, seed=options.seed)
    points = [
        _measure_part(train if len(rows) == len(train) else take_rows(train, rows), evaluation, options, seeds)
        for rows in parts
    ]
    report: dict[str, Any] = {
        "seeds": seeds,
        "points": [
            {
                "examples": point.examples,
                "accuracy": _mean_and_deviation(point.accuracies),
                "loss": _mean_and_deviation(point.losses),
            }
            for point in points
        ],
    }
    if len(points) < 2:
        return report
    half, full = points[-2:]
    differences = full.right - half.right
    gain = float(differences.mean())
    error = float(differences.std(ddof=1) / len(differences) ** 0.5) if len(differences) > 1 else float("inf")
    if gain > _SURE_ERRORS * error:
        answer = "yes"
    elif gain + _SURE_ERRORS * error < 0.01:
        answer = "no"
    else:
        answer = "unclear"
    return {
        **report,
        "last_doubling": {"accuracy_gain": gain, "standard_error": error if np.isfinite(error) else None},
        "more_images_help": answer,
        "classes": _class_gains(half, full, evaluation, seed=options.seed),
    }
