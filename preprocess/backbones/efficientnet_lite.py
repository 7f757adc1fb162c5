"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6, for phones and small devices.

Tan and Le, 2019, https://arxiv.org/abs/1905.11946; the Lite variants:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0). Keras does not have them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preprocess.backbones.tensorflow_import import import_tensorflow

EMBEDDING_SIZE = 1280

_EPSILON = 1e-3
# Neither scales with the network.
_STEM_FILTERS = 32


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Some blocks of one kind, of which only the first has a stride: the rows of the paper's table 1."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def _rounded(filters: float) -> int:
    """The nearest multiple of 8, but at least 0.9 of the number."""
    result = max(8, int(filters + 4) // 8 * 8)
    return result + 8 if result < 0.9 * filters else result


def build_efficientnet_lite(*, width: float, depth: float, size: int, classes: bool = False) -> Any:
    """Builds the network without weights.

    Args:
      width: factor of the numbers of filters: 1.0 for Lite0 and Lite1, 1.1 for Lite2.
      depth: factor of the numbers of blocks: 1.0, 1.1, 1.2.
      size: side of the input.
      classes: whether ImageNet's 1,000 classes follow the embedding.

    Returns:
      The Keras model: float32 [n, size, size, 3], (x - 127) / 128, to float32 [n, 1280], or to the probabilities of the
      classes, float32 [n, 1000].
    """
    import_tensorflow()
    from keras import Model, layers

    def normalized(values: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=_EPSILON, name=name)(values)

    def convolved(values: Any, name: str, filters: int, kernel: int = 1, strides: int = 1) -> Any:
        convolution = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)
        return convolution(values)

    pixels = layers.Input((size, size, 3))
    x = normalized(convolved(pixels, "conv_stem", _STEM_FILTERS, 3, 2), "bn0")
    x = layers.ReLU(6.0)(x)
    number = 0
    for position, stage in enumerate(_STAGES):
        filters = _rounded(stage.filters * width)
        is_scaled = 0 < position < len(_STAGES) - 1  # The first and the last stage keep their number of blocks.
        for repeat in range(math.ceil(stage.repeats * depth) if is_scaled else stage.repeats):
            name, strides, before = f"blocks.{number}.", stage.stride if repeat == 0 else 1, x
            if stage.expansion > 1:
                x = convolved(x, f"{name}_expand_conv", stage.expansion * x.shape[-1])
                x = layers.ReLU(6.0)(normalized(x, f"{name}_bn0"))
            x = layers.DepthwiseConv2D(
                stage.kernel, strides, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
            )(x)
            x = layers.ReLU(6.0)(normalized(x, f"{name}_bn1"))
            x = normalized(convolved(x, f"{name}_project_conv", filters), f"{name}_bn2")
            if strides == 1 and before.shape[-1] == filters:
                x = layers.Add()([x, before])
            number += 1
    x = layers.ReLU(6.0)(normalized(convolved(x, "conv_head", EMBEDDING_SIZE), "bn1"))
    x = layers.GlobalAveragePooling2D()(x)
    if classes:
        x = layers.Dense(1000, activation="softmax", name="fc")(x)
    return Model(pixels, x, name="efficientnet_lite")


def set_state(model: Any, state: Mapping[str, np.ndarray]) -> None:
    """Gives a network the weights of a state dict of EfficientNet-PyTorch, which has the same names of layers.

    Args:
      model: of `build_efficientnet_lite`.
      state: the arrays by name, in PyTorch's order of axes.

    Raises:
      ValueError: a weight is missing, or one or its shape does not belong to this network.
    """
    layers = [layer for layer in model.layers if layer.weights]
    named = [(layer.name, type(layer).__name__, len(layer.weights)) for layer in layers]
    for layer, arrays in zip(layers, weights_of_state(named, state), strict=True):
        layer.set_weights(arrays)


def weights_of_state(layers: Sequence[tuple[str, str, int]], state: Mapping[str, np.ndarray]) -> list[list[np.ndarray]]:
    """The weights of each layer, in the orders of Keras.

    Args:
      layers: name, class and number of weights of each layer that has weights.
      state: as for `set_state`.

    Raises:
      ValueError: a weight is missing, or one does not belong to this network.
    """
    left = {name for name in state if not name.endswith("num_batches_tracked")}
    found = []
    for layer, kind, count in layers:
        names = _names_of(layer, kind, count)
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"it lacks {missing[0]}")
        left -= set(names)
        found.append([_in_order_of_keras(kind, state[name]) for name in names])
    left -= {"_fc.weight", "_fc.bias"}
    if left:
        raise ValueError(f"this network has no {min(left)}")
    return found


def _names_of(layer: str, kind: str, count: int) -> list[str]:
    """The names of a layer's weights in the state dict, in the order of Keras.

    There they begin with an underscore, which TensorFlow allows in no name of a scope.
    """
    if kind == "BatchNormalization":
        parts = ["weight", "bias", "running_mean", "running_var"]
    else:
        parts = ["weight", "bias"][:count]
    return [f"_{layer}.{part}" for part in parts]


def _in_order_of_keras(kind: str, array: np.ndarray) -> np.ndarray:
    if kind == "Conv2D":  # [out, in, height, width]
        return array.transpose(2, 3, 1, 0)
    if kind == "DepthwiseConv2D":  # [channels, 1, height, width]
        return array.transpose(2, 3, 0, 1)
    return array.T
