from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.support.embedded_clusters import clusters, small_options
from trainer.training import precision
from trainer.training.checkpoints import NO_SAVING, run_definition
from trainer.training.head import build_head, head_digest, training_logits
from trainer.training.loop import train_head
from trainer.training.precision import training_precision


@pytest.mark.parametrize(
    ("changes", "has_bfloat16", "expected"),
    [
        ({}, True, "bfloat16"),
        ({}, False, "float32"),
        ({"hidden_units": 0}, True, "float32"),
        ({"hidden_units": 0, "training_precision": "bfloat16"}, True, "float32"),
        ({"standardize": False}, True, "float32"),
        ({"training_precision": "float32"}, True, "float32"),
        ({"training_precision": "bfloat16"}, False, "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_faster_and_loses_nothing(monkeypatch, changes, has_bfloat16, expected):
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: has_bfloat16)
    options = small_options(**changes)
    assert training_precision(options) == expected
    data = clusters(8, 0)
    assert run_definition(data, data, options)["training_precision"] == expected


def test_a_head_of_either_precision_learns_and_has_weights_in_float32():
    data = clusters(200, 0), clusters(100, 1)
    heads = {}
    for name in ("float32", "bfloat16"):
        result = train_head(*data, small_options(training_precision=name), saving=NO_SAVING)
        assert result.best.eval_accuracy > 0.97
        heads[name] = result.head
    assert head_digest(heads["float32"]) != head_digest(heads["bfloat16"])
    kernel = heads["bfloat16"].get_layer("hidden").get_weights()[0]
    assert kernel.dtype == np.float32
    # They are not merely numbers of bfloat16, so small updates are not lost.
    assert (tf.cast(tf.cast(kernel, tf.bfloat16), tf.float32).numpy() != kernel).mean() > 0.9
    near = np.abs(kernel - heads["float32"].get_layer("hidden").get_weights()[0])
    assert np.median(near) < 0.05 * np.abs(kernel).mean()


def test_products_in_bfloat16_and_their_gradients_are_near_those_in_float32():
    head = build_head(embedding_size=64, num_classes=3, hidden_units=16, seed=0, mean_and_variance=None)
    inputs = tf.constant(np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32))
    found = []
    for bfloat16 in (False, True):
        with tf.GradientTape() as tape:
            logits = training_logits(head, inputs, bfloat16=bfloat16)
            loss = tf.reduce_sum(logits**2)
        found.append([logits, *tape.gradient(loss, [variable.value for variable in head.trainable_variables])])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == tf.float32
        assert np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()
    assert (found[0][0].numpy() != found[1][0].numpy()).any()
