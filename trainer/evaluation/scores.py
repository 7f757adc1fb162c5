"""Scores from logits: a softmax if an example has one label, a sigmoid for each class if it may have several."""

from __future__ import annotations

import numpy as np

from trainer.data.label_mode import LabelMode


def log_scores(logits: np.ndarray, label_mode: LabelMode, *, temperature: float = 1.0) -> np.ndarray:
    """Logarithms of the scores; they are exact even where the scores themselves round to 0.

    Args:
      logits: float, shape [n, num_labels].
      label_mode: "single" for a softmax over the labels, "multi" for a sigmoid of each.
      temperature: positive; the logits are divided by it. A value above 1 makes the model less sure.

    Returns:
      float64, shape [n, num_labels].
    """
    scaled = logits.astype(np.float64) / temperature
    if label_mode == "multi":
        return -np.logaddexp(0.0, -scaled)
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def scores_of(logits: np.ndarray, label_mode: LabelMode, *, temperature: float = 1.0) -> np.ndarray:
    """The scores that the exported model gives for some logits.

    Args:
      logits: float, shape [n, num_labels].
      label_mode: "single" for a softmax over the labels, "multi" for a sigmoid of each.
      temperature: positive; the logits are divided by it.

    Returns:
      float64 in [0, 1], shape [n, num_labels]. Rows add up to 1 for "single".
    """
    return np.exp(log_scores(logits, label_mode, temperature=temperature))


def losses_of(
    logits: np.ndarray, targets: np.ndarray, label_mode: LabelMode, *, temperature: float = 1.0
) -> np.ndarray:
    """The loss of each example in nats: the cross-entropy; for "multi" the mean of the cross-entropies of all labels.

    Args:
      logits: float, shape [n, num_labels].
      targets: float, shape [n, num_labels], as `EmbeddingDataset.targets` gives them.
      label_mode: the label mode of the data set.
      temperature: positive; the logits are divided by it.

    Returns:
      float64, shape [n].
    """
    losses = -targets * log_scores(logits, label_mode, temperature=temperature)
    if label_mode == "single":
        return losses.sum(axis=1)
    # log(1 - sigmoid(x)) equals log(sigmoid(-x)).
    return (losses - (1.0 - targets) * log_scores(-logits, label_mode, temperature=temperature)).mean(axis=1)
