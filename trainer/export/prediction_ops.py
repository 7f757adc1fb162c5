"""From logits to answers in TensorFlow operations: the end of every exported model, whatever its format."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.label_mode import LabelMode


def answers(logits: tf.Tensor, *, label_mode: LabelMode, temperature: float, threshold: float) -> dict[str, tf.Tensor]:
    """The graph's counterpart of `trainer.evaluation.scores.scores_of`, with what is concluded from the scores.

    Args:
      logits: float32 [n, num_labels].
      label_mode: "single" for a softmax over the labels, "multi" for a sigmoid of each.
      temperature: positive; the logits are divided by it.
      threshold: best score from which the model says that it knows.

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
