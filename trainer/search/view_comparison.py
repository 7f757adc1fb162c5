"""What the views of the training images brought: the same training with views and on view 0 alone, seed by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.activity import doing
from trainer.data.dataset import EmbeddingDataset, LabeledExamples
from trainer.evaluation.metrics import predicted_labels, right_predictions
from trainer.evaluation.scores import scores_of
from trainer.options import TrainingOptions
from trainer.search.cross_validation import fit, sample_in_memory
from trainer.search.seeds_and_curves import PATIENCE, other_rows
from trainer.training.head import predict_logits

_FEWEST_SEEDS = 3
# The 97.5 % quantiles of the normal distribution, and of Student's t for 1, 2 ... degrees of freedom; the last one is
# taken for more degrees too, which makes intervals a little too wide.
_NORMAL = 1.960
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def _seeds(options: TrainingOptions) -> list[int]:
    return [(options.seed + offset) % 2**31 for offset in range(max(options.seeds, _FEWEST_SEEDS))]


def num_trainings(options: TrainingOptions) -> int:
    """How many heads `compare_views` trains."""
    return 2 * len(_seeds(options))


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean difference that depends on the seeds and on the images.

    Both parts are estimated from the means over the other one and added, each with its own quantile. The part that is
    due to neither alone is counted twice. So the interval is rather too wide than too narrow.

    Args:
      differences: float64, shape [seeds, images]: 1 where only the first head of a pair is right, -1 where only the
        second is, and else 0. At least two seeds.

    Returns:
      Both ends; -1 and 1 for fewer than two images.
    """
    num_seeds, num_images = differences.shape
    if num_images < 2:
        return -1.0, 1.0
    of_images = differences.mean(axis=0).var(ddof=1) / num_images
    of_seeds = differences.mean(axis=1).var(ddof=1) / num_seeds
    student = _STUDENT[min(num_seeds - 1, len(_STUDENT)) - 1]
    half = float(np.sqrt(_NORMAL**2 * of_images + student**2 * of_seeds))
    mean = float(differences.mean())
    return mean - half, mean + half


def _right(logits: np.ndarray, examples: LabeledExamples) -> np.ndarray:
    answers = predicted_labels(scores_of(logits, examples.label_mode), examples.label_mode)
    return right_predictions(answers, examples.label_sets(), examples.label_mode)


def compare_views(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    test: EmbeddingDataset | None,
    options: TrainingOptions,
    *,
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Trains pairs of heads with the same seed and options: one draws views, the other gets view 0 alone.

    Both heads of a pair have the same initial weights, order of examples, dropout and standardization. If the options
    have no early stopping, both trainings end after 10 evaluations without a lower loss, as in a learning curve: six
    trainings then take about twice as long as one to the last step.

    Args:
      train: the training set, with several views. Of a streamed set, the sample that `sample_in_memory` takes is used.
      evaluation: chooses the checkpoint of each head, and is measured.
      test: only measured; None if there is none.
      options: the options of the run. There are as many pairs as `options.seeds`, and at least three.
      left_out: examples of "eval" and "test" that other sets have too: int64 [m]; they are not measured unless no other
        example is left.

    Returns:
      JSON. `seeds`; `train_examples`: how many were trained on; `left_out`: examples of each set that were not
      measured; `eval`, `test`: the mean accuracies in [0, 1] `with_views` and `with_view_0`, `gain`: their difference,
      `interval`: see `paired_interval`, and `brought`: "more", "less", or "nothing" if the interval contains zero.

    Raises:
      InputError: training diverged.
    """
    options = dataclasses.replace(options, early_stopping=options.early_stopping or PATIENCE)
    if not train.embeddings.in_memory:
        train = sample_in_memory(train, options)
    undistorted = dataclasses.replace(train, embeddings=train.embeddings.first_view())
    measured = {"eval": evaluation, **({"test": test} if test is not None else {})}
    rows = {name: other_rows(dataset, (left_out or {}).get(name)) for name, dataset in measured.items()}
    examples = {name: dataset.examples_at(rows[name]) for name, dataset in measured.items()}
    seeds = _seeds(options)
    right: dict[str, list[list[np.ndarray]]] = {name: [[], []] for name in measured}
    with doing("measuring what the views brought", total=num_trainings(options), unit="training") as progress:
        for seed in seeds:
            for place, data in enumerate((train, undistorted)):
                head = fit(data, evaluation, dataclasses.replace(options, seed=seed)).head
                for name, dataset in measured.items():
                    logits = predict_logits(head, dataset.embeddings.pieces())[rows[name]]
                    right[name][place].append(_right(logits, examples[name]))
                progress.advance()
    return {
        "seeds": seeds,
        "train_examples": len(train),
        "left_out": {name: len(dataset) - len(rows[name]) for name, dataset in measured.items()},
        **{name: _gain(*map(np.array, both)) for name, both in right.items()},
    }


def _gain(with_views: np.ndarray, with_view_0: np.ndarray) -> dict[str, Any]:
    """Of two arrays, bool [seeds, images]: whether each head is right for each image."""
    differences = with_views.astype(np.float64) - with_view_0
    low, high = paired_interval(differences)
    gain = float(differences.mean())
    return {
        "with_views": float(with_views.mean()),
        "with_view_0": float(with_view_0.mean()),
        "gain": gain,
        "interval": [low, high],
        "brought": "more" if low > 0 else "less" if high < 0 else "nothing",
    }
