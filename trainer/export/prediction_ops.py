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


def without_bad(answers: dict[str, tf.Tensor], error: tf.Tensor) -> dict[str, tf.Tensor]:
    """Takes the answers from images that could not be decoded; all other answers stay as they are.

    Args:
      answers: what `predictions` gives, and `label` string [n].
      error: string [n], empty for the good images.

    Returns:
      The same; for the others, scores of 0, the prediction -1, an empty label, and not confident.
    """
    good = error == ""
    return {
        "scores": tf.where(good[:, tf.newaxis], answers["scores"], 0.0),
        "prediction": tf.where(good, answers["prediction"], tf.constant(-1, tf.int64)),
        "label": tf.where(good, answers["label"], ""),
        "confident": good & answers["confident"],
    }
