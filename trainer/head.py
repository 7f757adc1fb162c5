"""The head: what is trained on the embeddings. Standardization, dropout, a ReLU layer, softmax."""

from __future__ import annotations

import hashlib

import keras
import numpy as np

# Inputs of the dense layers get this standard deviation. Measured, as accuracy / loss on images that neither
# trained nor chose the checkpoint, on real ImageNet embeddings (style, 8 classes): raw 0.51 / 1.35, deviation
# 1: 0.51 / 2.06, 0.3: 0.53 / 1.42, 0.1: 0.54 / 1.29, 0.03: 0.51 / 1.31. With 1, Adam's fixed step overfits at
# once. Raw embeddings of random weights, a tiny variance on a big common mean, learn far too slowly.
STANDARDIZED_DEVIATION = 0.1

# A feature that hardly varies carries rounding noise, not information: it is not blown up to the others.
_RELATIVE_DEVIATION_FLOOR = 0.01

_ROWS_AT_A_TIME = 4096


def standardization(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-feature statistics that bring a training set to mean 0 and `STANDARDIZED_DEVIATION`.

    Args:
      embeddings: float32, shape [n, embedding_size].

    Returns:
      Mean and variance for `keras.layers.Normalization`, float32, shape [embedding_size] each. The variance
      is floored and positive.
    """
    # In float64, because a big common mean eats the digits of a tiny variance; in pieces, because a float64
    # copy of the whole training set would triple its memory.
    pieces = [embeddings[start : start + _ROWS_AT_A_TIME] for start in range(0, len(embeddings), _ROWS_AT_A_TIME)]
    mean = np.sum([piece.sum(axis=0, dtype=np.float64) for piece in pieces], axis=0) / len(embeddings)
    squares = np.sum([np.square(piece - mean).sum(axis=0) for piece in pieces], axis=0)
    variance = squares / len(embeddings)
    floor = max(_RELATIVE_DEVIATION_FLOOR**2 * float(variance.mean()), 1e-12)
    scaled = np.maximum(variance, floor) / STANDARDIZED_DEVIATION**2
    return mean.astype(np.float32), scaled.astype(np.float32)


def build_head(
    *,
    embedding_size: int,
    num_classes: int,
    hidden_units: int,
    dropout: float,
    seed: int,
    mean_and_variance: tuple[np.ndarray, np.ndarray] | None,
) -> keras.Model:
    """Builds an untrained head.

    Args:
      embedding_size: floats in one embedding.
      num_classes: labels in the dictionary.
      hidden_units: width of the ReLU layer; 0 for none.
      dropout: share of the inputs that a training step drops.
      seed: of the initial weights and of dropout.
      mean_and_variance: from `standardization`; None to take embeddings as they are.

    Returns:
      A model, float32 [n, embedding_size] to logits, float32 [n, num_classes]. It ends before the softmax,
      because the loss is more exact on logits; `softmax` of them are the scores.
    """
    layers: list[keras.layers.Layer] = [keras.layers.Input((embedding_size,), name="embedding")]
    if mean_and_variance is not None:
        mean, variance = mean_and_variance
        layers.append(keras.layers.Normalization(mean=mean, variance=variance, name="standardize"))
    if dropout:
        layers.append(keras.layers.Dropout(dropout, seed=seed, name="dropout"))
    if hidden_units:
        initializer = keras.initializers.GlorotUniform(seed=seed + 1)
        layers.append(
            keras.layers.Dense(hidden_units, activation="relu", kernel_initializer=initializer, name="hidden")
        )
    initializer = keras.initializers.GlorotUniform(seed=seed + 2)
    layers.append(keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits"))
    return keras.Sequential(layers, name="head")


def predict_logits(head: keras.Model, embeddings: np.ndarray, *, batch_size: int = 4096) -> np.ndarray:
    """The logits of many embeddings, without dropout.

    Args:
      head: from `build_head`.
      embeddings: float32, shape [n, embedding_size]; n may be 0.
      batch_size: examples at a time; bounds the memory, changes nothing else.

    Returns:
      float32, shape [n, num_classes].
    """
    parts = [
        keras.ops.convert_to_numpy(head(embeddings[start : start + batch_size], training=False))
        for start in range(0, len(embeddings), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, head.output_shape[-1]), np.float32)


def head_digest(head: keras.Model) -> str:
    """The digest, `sha256:` and hex, of everything in the head that makes its answers."""
    digest = hashlib.sha256()
    for layer in head.layers:
        arrays = layer.get_weights() if layer.name != "dropout" else []
        if layer.name == "standardize":
            arrays = [keras.ops.convert_to_numpy(layer.mean), keras.ops.convert_to_numpy(layer.variance)]
        for array in arrays:
            digest.update(f"{layer.name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"
