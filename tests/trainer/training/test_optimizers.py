from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.options import OPTIMIZERS
from trainer.training.optimizers import make_optimizer

REFERENCES = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.3),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_rule_is_that_of_keras(name):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype(np.float32)
    gradients = rng.normal(size=(6, 4, 3)).astype(np.float32)
    ours, theirs = tf.Variable(start), keras.Variable(start)
    optimizer = make_optimizer(name, [ours], learning_rate=0.01, weight_decay=0.3)
    reference = REFERENCES[name]()
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])
        reference.apply([tf.constant(gradient)], [theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-5, atol=1e-6)
    assert optimizer.iterations.numpy() == 6


def test_weight_decay_leaves_biases_alone():
    kernel, bias = tf.Variable(tf.ones((2, 2))), tf.Variable(tf.ones(2))
    optimizer = make_optimizer("adamw", [kernel, bias], learning_rate=0.1, weight_decay=0.5)
    optimizer.apply([tf.zeros((2, 2)), tf.zeros(2)])
    np.testing.assert_allclose(kernel.numpy(), 0.95)
    np.testing.assert_allclose(bias.numpy(), 1.0)
