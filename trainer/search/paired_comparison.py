"""Compares two trainings seed by seed: other training sets, but the same options and the same examples to measure."""

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
from trainer.search.cross_validation import fit
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
    """How many heads `compare_trainings` trains."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """How the heads of two trainings did on the same examples.

    Attributes:
      seeds: of each pair of heads.
      left_out: examples of each measured set that were not measured.
      right: for each measured set and each of both trainings, bool [seeds, examples]: whether the head is right.
    """

    seeds: list[int]
    left_out: dict[str, int]
    right: dict[str, tuple[np.ndarray, np.ndarray]]

    def to_json(self, first: str, second: str) -> dict[str, Any]:
        """JSON: `seeds`, `left_out`, and for each measured set what `_gain` says.

        Args:
          first: the name of the mean accuracy of the first training.
          second: of the second one.
        """
        return {
            "seeds": self.seeds,
            "left_out": self.left_out,
            **{name: _gain(*both, first, second) for name, both in self.right.items()},
        }


def compare_trainings(
    pair: tuple[tuple[EmbeddingDataset, EmbeddingDataset], tuple[EmbeddingDataset, EmbeddingDataset]],
    measured: Mapping[str, EmbeddingDataset],
    options: TrainingOptions,
    *,
    left_out: Mapping[str, np.ndarray] | None = None,
    what: str,
) -> PairedComparison:
    """Trains pairs of heads with the same seed and options.

    Both heads of a pair have the same initial weights and options. If the options have no early stopping, both
    trainings end after 10 evaluations without a lower loss, as in a learning curve.

    Args:
      pair: of both trainings, the training set in memory or streamed, and the set that chooses the checkpoint.
      measured: the sets that both are measured on.
      options: the options of the run. There are as many pairs as `options.seeds`, and at least three.
      left_out: examples of the measured sets that other sets have too: int64 [m]; they are not measured unless no other
        example is left.
      what: the words of the activity.

    Raises:
      InputError: training diverged.
    """
    options = dataclasses.replace(options, early_stopping=options.early_stopping or PATIENCE)
    rows = {name: other_rows(dataset, (left_out or {}).get(name)) for name, dataset in measured.items()}
    examples = {name: dataset.examples_at(rows[name]) for name, dataset in measured.items()}
    seeds = _seeds(options)
    right: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {name: ([], []) for name in measured}
    with doing(what, total=num_trainings(options), unit="training") as progress:
        for seed in seeds:
            for place, (train, evaluation) in enumerate(pair):
                head = fit(train, evaluation, dataclasses.replace(options, seed=seed)).head
                for name, dataset in measured.items():
                    logits = predict_logits(head, dataset.embeddings.pieces())[rows[name]]
                    right[name][place].append(_right(logits, examples[name]))
                progress.advance()
    return PairedComparison(
        seeds=seeds,
        left_out={name: len(dataset) - len(rows[name]) for name, dataset in measured.items()},
        right={name: (np.array(first), np.array(second)) for name, (first, second) in right.items()},
    )


def _right(logits: np.ndarray, examples: LabeledExamples) -> np.ndarray:
    answers = predicted_labels(scores_of(logits, examples.label_mode), examples.label_mode)
    return right_predictions(answers, examples.label_sets(), examples.label_mode)


def _gain(of_first: np.ndarray, of_second: np.ndarray, first: str, second: str) -> dict[str, Any]:
    """Both mean accuracies, the `gain` of the first with its `interval`, and what it `brought`.

    Args:
      of_first: bool [seeds, examples]: whether each head is right.
      of_second: the same.
      first: the name of the mean accuracy of the first one.
      second: of the second one.
    """
    differences = of_first.astype(np.float64) - of_second
    low, high = paired_interval(differences)
    gain = float(differences.mean())
    return {
        first: float(of_first.mean()),
        second: float(of_second.mean()),
        "gain": gain,
        "interval": [low, high],
        "brought": "more" if low > 0 else "less" if high < 0 else "nothing",
    }
