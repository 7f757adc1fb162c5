"""Chooses the temperature of a model: 1, unless the evaluation set clearly asks for another one.

A temperature that is fitted on few examples follows their chance. So it is taken only if both hold:

- The scores are not honest: by Rao's score test (Rao, 1948) of the temperature 1, labels drawn by these scores would
  hardly ever ask for as much. The loss is that of an exponential family in the inverse temperature, so mean and
  variance of its slope at 1 are known without any fit. The example that asks for it most is left out of the test, so
  that no single one, such as a photo with a wrong label, can decide.
- A temperature that was fitted without an example makes the loss of that example lower, on average (cross-validation).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from configs.counts import counted
from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.calibration import fit_temperature, slopes_and_curvatures
from trainer.evaluation.scores import losses_of

# The usual level of a test. Of made-up models with honest scores, 2 % or fewer get another temperature than 1.
_LEVEL = 0.05
_NUM_FOLDS = 10
# Cross-validation of more than these takes seconds. So many examples agree with a fit of one number anyway.
_MAX_FOLD_LOGITS = 400_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemperatureChoice:
    """The temperature of a model, and why it is that.

    Attributes:
      temperature: the model divides its logits by it; 1 if no other one is clearly better.
      fitted: the temperature with the lowest loss on the evaluation set.
      examples: on how many examples it was fitted.
      p_value: how often honest scores would ask for at least as much, by chance; in [0, 1]. The example that asks for
        it most is left out.
      loss_at_one: the mean loss in nats at temperature 1, of the examples that the cross-validation took.
      loss_cross_validated: the mean loss of these, each at the temperature that was fitted without it; None if there is
        one example only.
    """

    temperature: float
    fitted: float
    examples: int
    p_value: float
    loss_at_one: float
    loss_cross_validated: float | None

    @property
    def reason(self) -> str:
        """The choice and its reason: a sentence without a full stop."""
        fitted, those = f"{self.fitted:.2f}", counted(self.examples, "evaluation image")
        if self.temperature != 1.0:
            return (
                f"The model divides its logits by the temperature {fitted}, fitted on {those}: this makes the loss of "
                f"images that did not take part in the fit lower ({self.loss_at_one:.3f} to "
                f"{self.loss_cross_validated:.3f})"
            )
        start = f"The scores stay as they were trained (temperature 1): on {those}, {fitted} would have the lowest loss"
        if self.p_value >= _LEVEL:
            return f"{start}, but honest scores ask for as much by chance too (p = {self.p_value:.2f})"
        return (
            f"{start}, but fitted without some of them it does not make the loss of those lower "
            f"({self.loss_at_one:.3f} to {self.loss_cross_validated:.3f})"
        )

    def to_json(self) -> dict[str, float | int | str | None]:
        """The fields, and `reason`."""
        return {**dataclasses.asdict(self), "reason": self.reason}


def choose_temperature(logits: np.ndarray, dataset: EmbeddingDataset, *, rows: np.ndarray) -> TemperatureChoice:
    """Fits a temperature and takes it if the examples support it; see the text at the top.

    Args:
      logits: float, shape [n, num_labels], n at least 1.
      dataset: the examples.
      rows: int64, shape [n]: the examples that the logits belong to.
    """
    fitted = fit_temperature(logits, dataset, rows=rows)
    targets = dataset.targets(rows)
    p_value = _p_value_of_one(logits, targets, dataset)
    count = max(2000, _MAX_FOLD_LOGITS // logits.shape[1])
    if len(rows) > count:
        some = np.linspace(0, len(rows) - 1, count).astype(np.int64)
        logits, targets, rows = logits[some], targets[some], rows[some]
    at_one = float(losses_of(logits, targets, dataset.label_mode).mean())
    left_out = _cross_validated_loss(logits, targets, dataset, rows)
    is_better = p_value < _LEVEL and left_out is not None and left_out < at_one
    return TemperatureChoice(
        temperature=fitted if is_better else 1.0,
        fitted=fitted,
        examples=len(dataset),
        p_value=p_value,
        loss_at_one=at_one,
        loss_cross_validated=left_out,
    )


def _p_value_of_one(logits: np.ndarray, targets: np.ndarray, dataset: EmbeddingDataset) -> float:
    """The two-sided p-value of Rao's score test that the temperature is 1, without the example that denies it most."""
    slopes, variances = slopes_and_curvatures(logits.astype(np.float64), targets, 1.0, dataset.label_mode)
    most = int(np.argmax(slopes * np.sign(slopes.sum())))
    slope, variance = slopes.sum() - slopes[most], variances.sum() - variances[most]
    # Without it, the others may ask for the opposite, and that is no reason either.
    if slope * slopes.sum() <= 0 or variance <= 0:
        return 1.0
    return math.erfc(abs(slope) / math.sqrt(2 * variance))


def _cross_validated_loss(
    logits: np.ndarray, targets: np.ndarray, dataset: EmbeddingDataset, rows: np.ndarray
) -> float | None:
    """The mean loss of the examples, each at the temperature that was fitted without its fold. None if there is one."""
    folds = min(len(rows), _NUM_FOLDS)
    if folds < 2:
        return None
    # Neighbours are in different folds, since sets are often sorted by class.
    fold_of = np.arange(len(rows)) % folds
    total = 0.0
    for fold in range(folds):
        held = fold_of == fold
        temperature = fit_temperature(logits[~held], dataset, rows=rows[~held])
        total += float(losses_of(logits[held], targets[held], dataset.label_mode, temperature=temperature).sum())
    return total / len(rows)
