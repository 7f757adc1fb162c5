"""The prediction ops: TensorFlow operations from logits to predictions, which end every exported model."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.label_mode import LabelMode


def predictions(
    logits: tf.Tensor, *, label_mode: LabelMode, temperature: float, threshold: float
) -> dict[str, tf.Tensor]:
    """Computes scores as `trainer.evaluation.scores.scores_of` does, and the predictions that follow from them.

    Args:
      logits: float32 [n, num_labels].
      label_mode: "single" for a softmax over the labels, "multi" for a sigmoid of each.
      temperature: positive; the logits are divided by it.
      threshold: the model is confident if the best score is at least this.

    Returns:
      `scores` float32 [n, num_labels], `prediction` int64 [n] (id of the best label), `confident` bool [n].
    """
    scaled = logits / temperature
    scores = tf.sigmoid(scaled) if label_mode == "multi" else tf.nn.softmax(scaled)
    return {
        "scores": scores,
        "prediction": tf.argmax(scores, axis=1, output_type=tf.int64),
        "confident": tf.reduce_max(scores, axis=1) >= threshold,
    }
