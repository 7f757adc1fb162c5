"""The head, the part that is trained: standardization, a ReLU layer and a layer that gives the logits.

Dropout is no layer of the head, because only training has it: `trainer.training.inputs` does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data.feature_statistics import FeatureStatistics

# Inputs of the dense layers get this standard deviation. It was chosen by measurement, on real ImageNet embeddings
# (style, 8 classes) and on images that took no part in training or in the choice of the checkpoint. Accuracy / loss:
# raw 0.51 / 1.35, deviation 1: 0.51 / 2.06, 0.3: 0.53 / 1.42, 0.1: 0.54 / 1.29, 0.03: 0.51 / 1.31. With a deviation
# of 1, Adam's fixed step size overfits at once. Raw embeddings of random weights have a tiny variance around a large
# common mean, so a head learns from them far too slowly.
STANDARDIZED_DEVIATION = 0.1

# A feature that hardly varies holds rounding noise and no information, so it is not scaled up like the others.
_RELATIVE_DEVIATION_FLOOR = 0.01

_STANDARDIZE = "standardize"


def standardization(statistics: FeatureStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Per-feature statistics that bring a training set to mean 0 and `STANDARDIZED_DEVIATION`.

    Args:
      statistics: the feature statistics of the training set's embeddings.

    Returns:
      Mean and variance for `keras.layers.Normalization`, float32, shape [embedding_size] each. The variance
      has a lower bound and is always positive.
    """
    variance = statistics.variance
    floor = max(_RELATIVE_DEVIATION_FLOOR**2 * float(variance.mean()), 1e-12)
    scaled = np.maximum(variance, floor) / STANDARDIZED_DEVIATION**2
    return statistics.mean.astype(np.float32), scaled.astype(np.float32)


def build_head(
    *,
    embedding_size: int,
    num_classes: int,
    hidden_units: int,
    seed: int,
    mean_and_variance: tuple[np.ndarray, np.ndarray] | None,
) -> keras.Model:
    """Builds an untrained head.

    Args:
      embedding_size: floats in one embedding.
      num_classes: labels in the dictionary.
      hidden_units: width of the ReLU layer; 0 for none.
      seed: decides the initial weights.
      mean_and_variance: from `standardization`; None to use the embeddings unchanged.

    Returns:
      A model, float32 [n, embedding_size] to logits, float32 [n, num_classes]. It has no softmax and no sigmoids,
      because the loss is more exact on logits; `trainer.evaluation.scores` turns logits into scores.
    """
    layers: list[keras.layers.Layer] = [keras.layers.Input((embedding_size,), name="embedding")]
    if mean_and_variance is not None:
        mean, variance = mean_and_variance
        layers.append(keras.layers.Normalization(mean=mean, variance=variance, name=_STANDARDIZE))
    if hidden_units:
        initializer = keras.initializers.GlorotUniform(seed=seed + 1)
        layers.append(
            keras.layers.Dense(hidden_units, activation="relu", kernel_initializer=initializer, name="hidden")
        )
    initializer = keras.initializers.GlorotUniform(seed=seed + 2)
    layers.append(keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits"))
    return keras.Sequential(layers, name="head")


def training_logits(head: keras.Model, inputs: tf.Tensor, *, bfloat16: bool = False) -> tf.Tensor:
    """The logits in a training step.

    Args:
      head: from `build_head`.
      inputs: from `TrainingInputs`, so they are standardized already: float32 [n, embedding_size].
      bfloat16: whether the matrix products of the hidden layer, and those of its gradient, are computed in bfloat16.
    """
    *hidden, logits = (layer for layer in head.layers if layer.name != _STANDARDIZE)
    for layer in hidden:
        inputs = _in_bfloat16(layer, inputs) if bfloat16 else layer(inputs, training=True)
    return logits(inputs)


def _in_bfloat16(layer: keras.layers.Dense, inputs: tf.Tensor) -> tf.Tensor:
    product = tf.matmul(tf.cast(inputs, tf.bfloat16), tf.cast(layer.kernel.value, tf.bfloat16))
    return layer.activation(tf.cast(product, tf.float32) + layer.bias)


def predict_logits(head: keras.Model, pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The logits of many embeddings.

    Args:
      head: from `build_head`.
      pieces: the embeddings in pieces: float32, shapes [m, embedding_size]. There may be no piece at all.

    Returns:
      float32, shape [n, num_classes], where n is the sum of all m.
    """
    parts = [keras.ops.convert_to_numpy(head(piece, training=False)) for piece in pieces]
    return np.concatenate(parts) if parts else np.zeros((0, head.output_shape[-1]), np.float32)


def head_graph(head: keras.Model) -> Any:
    """The graph of a head, from embeddings to logits: a `tf.GraphDef` with shapes, for TensorBoard."""
    spec = tf.TensorSpec([None, head.input_shape[-1]], tf.float32, name="embeddings")
    traced = tf.function(lambda embeddings: head(embeddings, training=False), autograph=False)
    return traced.get_concrete_function(spec).graph.as_graph_def(add_shapes=True)


def head_digest(head: keras.Model) -> str:
    """The digest (`sha256:` and hex) of everything in the head that decides its predictions."""
    digest = hashlib.sha256()
    for layer in head.layers:
        arrays = layer.get_weights()
        if layer.name == _STANDARDIZE:
            arrays = [keras.ops.convert_to_numpy(layer.mean), keras.ops.convert_to_numpy(layer.variance)]
        for array in arrays:
            digest.update(f"{layer.name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"
