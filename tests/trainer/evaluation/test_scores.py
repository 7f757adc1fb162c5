from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.evaluation.scores import log_scores, losses_of, scores_of

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], np.float32)


def test_scores_are_tensorflows():
    for temperature in (1.0, 2.5):
        scaled = tf.constant(LOGITS) / temperature
        np.testing.assert_allclose(
            scores_of(LOGITS, "single", temperature=temperature), tf.nn.softmax(scaled), rtol=1e-6
        )
        np.testing.assert_allclose(scores_of(LOGITS, "multi", temperature=temperature), tf.sigmoid(scaled), rtol=1e-6)


def test_losses_are_tensorflows():
    targets = np.array([[0.5, 0.5, 0], [0, 0, 1]], np.float32)
    np.testing.assert_allclose(
        losses_of(LOGITS, targets, "single"), tf.nn.softmax_cross_entropy_with_logits(targets, LOGITS), rtol=1e-6
    )
    targets = np.array([[1, 1, 0], [0, 0, 0]], np.float32)
    expected = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, LOGITS), axis=1)
    np.testing.assert_allclose(losses_of(LOGITS, targets, "multi"), expected, rtol=1e-6)


def test_certainty_has_a_finite_logarithm():
    certain = np.array([[1e4, 0.0]], np.float32)
    np.testing.assert_array_equal(log_scores(certain, "single"), [[0.0, -1e4]])
    np.testing.assert_array_equal(log_scores(-certain, "multi"), [[-1e4, np.log(0.5)]])
