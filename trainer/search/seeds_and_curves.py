"""How much the accuracy depends on the seed (`--seeds`), and what more images would bring (`--learning_curve`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.activity import Activity, doing
from trainer.data.dataset import EmbeddingDataset, LabeledExamples
from trainer.evaluation.metrics import measure, predicted_labels, right_predictions
from trainer.evaluation.scores import scores_of
from trainer.options import TrainingOptions
from trainer.search.cross_validation import fit, sample_in_memory, take_rows
from trainer.training.head import predict_logits

# Each part is twice as large as the part before, because accuracy grows about linearly with the logarithm of the number
# of examples.
_HALVINGS = 4
_CURVE_SEEDS = 3
# Training stops after this many evaluations without progress. On real embeddings (style, 647 examples), this gave the
# same numbers as all 1,000 steps, in 31 seconds instead of 82.
PATIENCE = 10
# A part with fewer examples would show nothing useful.
_MIN_EXAMPLES_PER_CLASS = 2
_RESAMPLES = 200
_RESAMPLED_AT_A_TIME = 10
# A difference of fewer standard errors may be chance.
_SURE_ERRORS = 2.0


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


def other_rows(dataset: EmbeddingDataset, rows: np.ndarray | None) -> np.ndarray:
    """int64, ascending: the examples of a data set except for some; all of them if no other is left."""
    rest = np.setdiff1d(np.arange(len(dataset)), () if rows is None else rows)
    return rest if len(rest) else np.arange(len(dataset))


def over_seeds(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    test: EmbeddingDataset | None,
    options: TrainingOptions,
    *,
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Trains the same head with `options.seeds` seeds, which begin at `options.seed`.

    Args:
      train: the training set.
      evaluation: chooses the checkpoint of each head, and is measured.
      test: only measured; None if there is none.
      options: the options of the run.
      left_out: examples of "eval" and "test" that other sets have too: int64 [m]; they are not measured unless no other
        example is left.

    Returns:
      JSON. `seeds`; `runs`: `accuracy` in [0, 1] and `loss` in nats for each seed; `eval`, `test`: for both, the `mean`
      and the sample `deviation` (null for one seed) over all seeds; `left_out`: how many examples of each set were not
      measured.

    Raises:
      InputError: training diverged.
    """
    measured = {"eval": evaluation, **({"test": test} if test is not None else {})}
    rows = {name: other_rows(dataset, (left_out or {}).get(name)) for name, dataset in measured.items()}
    examples = {name: dataset.examples_at(rows[name]) for name, dataset in measured.items()}
    seeds = [(options.seed + offset) % 2**31 for offset in range(options.seeds)]
    runs: list[dict[str, Any]] = []
    with doing(f"training with {len(seeds)} seeds", total=len(seeds), unit="seed") as progress:
        for seed in seeds:
            head = fit(train, evaluation, dataclasses.replace(options, seed=seed)).head
            found = {
                name: dataclasses.asdict(
                    measure(predict_logits(head, dataset.embeddings.pieces())[rows[name]], examples[name])
                )
                for name, dataset in measured.items()
            }
            runs.append({"seed": seed, **found})
            progress.advance()
    return {
        "note": "the deviation is that of initial weights, order of examples and dropout, not of the images",
        "seeds": seeds,
        "runs": runs,
        "left_out": {name: len(dataset) - len(rows[name]) for name, dataset in measured.items()},
        **{
            name: {key: _mean_and_deviation([run[name][key] for run in runs]) for key in ("accuracy", "loss")}
            for name in measured
        },
    }


def nested_parts(dataset: EmbeddingDataset, *, halvings: int, seed: int) -> list[np.ndarray]:
    """The rows of growing parts of a data set. Each part has half of the examples of the next part, in every class.

    Args:
      dataset: the data set of n examples.
      halvings: the smallest part has n / 2**halvings examples.
      seed: the same seed gives the same parts.

    Returns:
      int64, ascending. Each part contains the part before, and the last part is the whole set. A part has at least two
      examples of each class (an example's first label) if the class has so many. If parts are equal for this reason,
      only one of them is returned.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Point:
    """The results of heads that were trained on parts of one size. All are tested on the same images.

    Attributes:
      support: int64 [num_labels]: training examples of each label.
      right: float64 [n]: for each image, the share of the heads whose prediction is right.
      found: float64 [n, num_labels]: the share of the heads that predicted a label which the image has.
      predicted: float64 [n, num_labels]: the share of the heads that predicted a label.
    """

    examples: int
    support: np.ndarray
    accuracies: list[float]
    losses: list[float]
    right: np.ndarray
    found: np.ndarray
    predicted: np.ndarray


def _measure_part(
    part: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    options: TrainingOptions,
    seeds: Sequence[int],
    rows: np.ndarray,
    progress: Activity,
) -> _Point:
    examples = evaluation.examples_at(rows)
    members = examples.label_sets()
    accuracies, losses = [], []
    right = np.zeros(len(examples))
    found = np.zeros(members.shape)
    predicted = np.zeros(members.shape)
    for seed in seeds:
        head = fit(part, evaluation, dataclasses.replace(options, seed=seed)).head
        logits = predict_logits(head, evaluation.embeddings.pieces())[rows]
        measures = measure(logits, examples)
        accuracies.append(measures.accuracy)
        losses.append(measures.loss)
        answers = predicted_labels(scores_of(logits, evaluation.label_mode), evaluation.label_mode)
        right += right_predictions(answers, members, evaluation.label_mode)
        found += answers & members
        predicted += answers
        progress.advance()
    return _Point(
        examples=len(part),
        support=part.support(),
        accuracies=accuracies,
        losses=losses,
        right=right / len(seeds),
        found=found / len(seeds),
        predicted=predicted / len(seeds),
    )


def _f1(weights: np.ndarray, point: _Point, members: np.ndarray) -> np.ndarray:
    """F1 of each label, float64 [m, num_labels], for m different weights of the images, float64 [m, n]."""
    total = weights @ (point.predicted + members)
    return np.divide(2 * (weights @ point.found), total, out=np.zeros_like(total), where=total > 0)


def _class_gains(half: _Point, full: _Point, evaluation: LabeledExamples, *, seed: int) -> list[dict[str, Any]]:
    """How much the second half of the training images improved each class; the most promising class comes first."""
    members = evaluation.label_sets().astype(np.float64)
    everything = np.ones((1, len(evaluation)))
    before, after = (_f1(everything, point, members)[0] for point in (half, full))
    # Both parts are measured on the same resampled images, so the influence that an image has on both cancels.
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


def learning_curve(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    options: TrainingOptions,
    *,
    left_out: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures how the accuracy depends on the number of training examples, and which classes need more images.

    Heads are trained on a sixteenth, an eighth ... and all of the training examples of each class, with a few seeds.

    Args:
      train: the training set. For a streamed set, the sample that `sample_in_memory` takes is used.
      evaluation: chooses the checkpoint of each head, and is measured.
      options: the options of the run. If they have no early stopping, training stops after 10 evaluations without
        progress.
      left_out: examples of the evaluation set that are training examples too: int64 [m]. They are not measured, unless
        no other example is left: part of their gain comes from being trained on.

    Returns:
      JSON. `points`: for each part `examples`, and the mean and deviation of `accuracy` and `loss` over the seeds.
      `last_doubling`: how much accuracy the second half of the examples added, with its standard error over the images.
      `more_images_help`: "yes" if this gain is more than two standard errors; "no" if the gain plus two standard errors
      is below 0.01; else "unclear". `classes`: for each label in the evaluation set, its F1 with half and with all of
      the examples, the gain, and its standard error over the images. The label for which another doubling promises most
      comes first. A gain is `sure` if it is more than two standard errors. With a single point, only `points` is
      returned.

    Raises:
      InputError: training diverged.
    """
    seeds = [(options.seed + offset) % 2**31 for offset in range(_CURVE_SEEDS)]
    options = dataclasses.replace(options, early_stopping=options.early_stopping or PATIENCE)
    if not train.embeddings.in_memory:
        train = sample_in_memory(train, options)
    rows_measured = other_rows(evaluation, left_out)
    examples = evaluation.examples_at(rows_measured)
    parts = nested_parts(train, halvings=_HALVINGS, seed=options.seed)
    points = []
    with doing("measuring what more images would bring", total=len(parts) * len(seeds), unit="training") as progress:
        for rows in parts:
            part = train if len(rows) == len(train) else take_rows(train, rows)
            points.append(_measure_part(part, evaluation, options, seeds, rows_measured, progress))
    report: dict[str, Any] = {
        "seeds": seeds,
        "left_out": len(evaluation) - len(examples),
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
        "classes": _class_gains(half, full, examples, seed=options.seed),
    }
