from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from tests.support.embedded_clusters import dataset
from trainer.options import TrainingOptions
from trainer.training.losses import balanced_weights, example_losses, penalty

LABEL_IDS = [[0], [1], [1], [1, 3], [0, 1, 3], [3]]  # No example of class 2.
OPTIONS = TrainingOptions(train_data_paths=("t",), eval_data_paths=("e",), output_path="o")
LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def examples(mode, label_ids=LABEL_IDS):
    return dataclasses.replace(dataset(np.zeros((len(label_ids), 2)), label_ids, 4), label_mode=mode)


def losses(data, **options) -> np.ndarray:
    targets = data.targets(np.arange(len(data)))
    return example_losses(data, dataclasses.replace(OPTIONS, **options))(tf.constant(LOGITS), targets).numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_are_those_of_keras(smoothing):
    single, multi = examples("single"), examples("multi")
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(
        losses(single, label_smoothing=smoothing), expected(single.targets(np.arange(6)), LOGITS), rtol=1e-5
    )
    expected = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(
        losses(multi, label_smoothing=smoothing), expected(multi.targets(np.arange(6)), LOGITS), rtol=1e-5
    )


def test_balanced_weights_are_those_of_scikit_learn_and_one_on_average():
    classes = np.array([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(np.bincount(classes, minlength=4), len(classes), "single")
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=classes)
    np.testing.assert_allclose(weights[:, [0, 1, 3]], [expected, expected], rtol=1e-6)
    assert weights[1, classes].mean() == pytest.approx(1)


def test_balanced_weights_of_several_labels_balance_each_class():
    # All, none, one and three of four examples have the class.
    weights = balanced_weights(np.array([4, 0, 1, 3]), 4, "multi")
    np.testing.assert_allclose(weights, [[1, 1, 4 / 6, 2], [1, 1, 2, 4 / 6]], rtol=1e-6)


def test_weights_of_examples_against_numpy():
    single = examples("single")
    weights = balanced_weights(single.support(), 6, "single")[1]
    of_examples = np.array([weights[ids].mean() for ids in LABEL_IDS])
    np.testing.assert_allclose(losses(single, class_weights="balanced"), of_examples * losses(single), rtol=1e-5)

    multi = examples("multi")
    targets = multi.targets(np.arange(6))
    each = np.logaddexp(0, LOGITS) - targets * LOGITS
    weights = balanced_weights(multi.support(), 6, "multi")
    expected = (each * np.where(targets > 0, weights[1], weights[0])).mean(axis=1)
    np.testing.assert_allclose(losses(multi, class_weights="balanced"), expected, rtol=1e-5)


def test_the_penalty_is_that_of_keras():
    kernels = [tf.Variable(np.random.default_rng(i).normal(size=(5, 4)).astype(np.float32)) for i in range(2)]
    expected = sum(keras.regularizers.L2(0.3)(kernel) for kernel in kernels)
    np.testing.assert_allclose(penalty(kernels, 0.3), expected, rtol=1e-6)
