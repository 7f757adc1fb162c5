"""Puts layers of a network into 8 bits: their weights, and the values that they read.

A quantized network is still an `ov.Model` of floats. `FakeQuantize` operations round the values that its layers read to
256 levels, and the weights are integers of 8 bits with a scale for each output channel. OpenVINO recognizes both and
runs such layers in integers, as it does with networks that NNCF, Intel's tool for this, has made. See "Low precision
transformations" in OpenVINO's documentation, and Krishnamoorthi, "Quantizing deep convolutional networks for efficient
inference: A whitepaper" (arXiv:1806.08342), sections 2 and 3.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

_LAYERS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
# The axes of a layer's weights that are its output channels; all others are summed over. Of MatMul it depends.
_CHANNEL_AXES = {"Convolution": (0,), "GroupConvolution": (0, 1)}

_LEVELS = 256
# Weights are -127 to 127, so that 0 is in the middle.
_LARGEST_WEIGHT = 127


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with constant weights.

    Attributes:
      node: its operation.
      weights: float32, in the layout of the operation.
    """

    node: Any
    weights: np.ndarray

    @property
    def data(self) -> Any:
        """The input of the operation that is not its weights."""
        return self.node.input(0)

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The axes of the weights that are the output channels."""
        kind = self.node.get_type_name()
        return _CHANNEL_AXES.get(kind) or (0 if self.node.get_attributes()["transpose_b"] else 1,)

    @property
    def input_channel_axis(self) -> int:
        """The axis of the input that is its channels."""
        return 1 if self.node.get_type_name() in _CHANNEL_AXES else len(self.data.get_partial_shape()) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value between operations that layers read, directly or through operations that only move values.

    Attributes:
      output: the output of the operation that computes it.
      readers: the inputs that get it in 8 bits; others get it as it is.
    """

    output: Any
    readers: list[Any]


def find_layers(network: Any) -> list[Layer]:
    """The layers of an `ov.Model` that can be quantized, in the order in which they run."""
    found = []
    for node in network.get_ordered_ops():
        if node.get_type_name() in _LAYERS:
            constant, rank = node.input_value(1).get_node(), node.input(0).get_partial_shape().rank
            is_constant = (
                constant.get_type_name() == "Constant" and constant.get_element_type().get_type_name() == "f32"
            )
            if is_constant and rank.is_static and _has_channels(node, rank.get_length()):
                found.append(Layer(node=node, weights=constant.get_data()))
    return found


def _has_channels(node: Any, rank: int) -> bool:
    """Whether the channels of the input and of the weights are where `Layer` takes them from."""
    if node.get_type_name() != "MatMul":
        return True
    return rank >= 2 and len(node.input(1).get_shape()) == 2 and not node.get_attributes()["transpose_a"]


def find_tensors(layers: Iterable[Layer]) -> list[list[Tensor]]:
    """What has to be quantized for some layers.

    Returns:
      Groups of tensors. The tensors of a group are joined by a `Concat`, and need the same range: in integers, joining
      is then only moving bytes.
    """
    search = _Search()
    for layer in layers:
        search.visit(layer.data)
    return search.groups()


class _Search:
    """Finds the tensors that layers read, and which of them need the same range."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, int], Tensor] = {}
        self._group_of: dict[tuple[str, int], int] = {}
        self._visited: dict[str, set[tuple[str, int]]] = {}

    def visit(self, reader: Any) -> set[tuple[str, int]]:
        """Takes note of what an input reads. Returns the names of the tensors, which are in one group."""
        output = reader.get_source_output()
        node = output.get_node()
        name = node.get_name()
        moved = _moved_inputs(node)
        if not moved:
            key = (name, output.get_index())
            self._tensors.setdefault(key, Tensor(output=output, readers=[])).readers.append(reader)
            self._group_of.setdefault(key, len(self._group_of))
            return {key}
        if name not in self._visited:
            self._visited[name] = set().union(*(self.visit(one) for one in moved))
            self._join(self._visited[name])
        return self._visited[name]

    def _join(self, keys: set[tuple[str, int]]) -> None:
        joined = {self._group_of[key] for key in keys}
        for key, group in self._group_of.items():
            if group in joined:
                self._group_of[key] = min(joined)

    def groups(self) -> list[list[Tensor]]:
        """The tensors by group."""
        groups: dict[int, list[Tensor]] = {}
        for key, tensor in self._tensors.items():
            groups.setdefault(self._group_of[key], []).append(tensor)
        return list(groups.values())


def _moved_inputs(node: Any) -> list[Any]:
    """The inputs whose values an operation only moves or selects; empty if it computes other values."""
    kind = node.get_type_name()
    moved = []
    if kind == "Concat":
        moved = list(node.inputs())
    elif kind == "MaxPool" or (kind == "Pad" and _pads_with_zeros(node)):
        moved = [node.input(0)]
    return moved if all(one.get_partial_shape().rank.is_static for one in moved) else []


def _pads_with_zeros(pad: Any) -> bool:
    if pad.get_attributes()["pad_mode"] != "constant":
        return False
    value = pad.input_value(3).get_node() if pad.get_input_size() > 3 else None
    return value is None or (value.get_type_name() == "Constant" and not np.any(value.get_data()))


def quantize_weights(layer: Layer, means: np.ndarray) -> None:
    """Replaces the weights of a layer by 8 bits, and corrects what that changes on average.

    With W the weights, Q those of 8 bits and x the input, the outputs change by (Q - W) x. The mean of that over images
    and places, (Q - W) mean(x), is known, so it is subtracted: the bias correction of Nagel et al., "Data-free
    quantization through weight equalization and bias correction" (arXiv:1906.04721), section 4.2. At the borders of an
    image, where a convolution reads zeros, it is too large.

    Args:
      layer: the layer, whose network is changed.
      means: float64 [input channels], the mean of each channel of its input.
    """
    from openvino import opset13

    weights, axes = layer.weights, layer.channel_axes
    summed = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    scales = np.abs(weights).max(axis=summed, keepdims=True) / _LARGEST_WEIGHT
    scales[scales == 0] = 1
    # Clipped, because the quotient of the tiniest floats, which some channels of real networks consist of, is inexact.
    integers = np.clip(np.rint(weights / scales), -_LARGEST_WEIGHT, _LARGEST_WEIGHT).astype(np.int8)
    floats = opset13.convert(opset13.constant(integers), "f32")
    layer.node.input(1).replace_source_output(opset13.multiply(floats, opset13.constant(scales)).output(0))
    change = _outputs_of_means(layer, integers * scales - weights, means)
    shape = [1] * len(layer.node.output(0).get_partial_shape())
    shape[layer.input_channel_axis] = -1
    _add(layer.node.output(0), -change.reshape(shape))


def _add(output: Any, values: np.ndarray) -> None:
    """Adds constants to an output: to those that are added to it already, because OpenVINO does that in the layer."""
    from openvino import opset13

    readers = list(output.get_target_inputs())
    if len(readers) == 1 and readers[0].get_node().get_type_name() == "Add":
        other = readers[0].get_node().input(1 - readers[0].get_index())
        added = other.get_source_output().get_node()
        if added.get_type_name() == "Constant":
            other.replace_source_output(opset13.constant((added.get_data() + values).astype(np.float32)).output(0))
            return
    sums = opset13.add(output, opset13.constant(values.astype(np.float32))).output(0)
    for reader in readers:
        reader.replace_source_output(sums)


def _outputs_of_means(layer: Layer, weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    """What a layer makes of an input that has the same values everywhere: float64 [output channels]."""
    kind, axes = layer.node.get_type_name(), layer.channel_axes
    if kind == "MatMul":
        return np.moveaxis(weights, axes[0], 0) @ means
    # [groups, output channels of a group, input channels of a group]: a convolution reads the same at all places.
    matrices = weights.sum(axis=tuple(range(len(axes) + 1, weights.ndim)), dtype=np.float64)
    matrices = matrices.reshape(weights.shape[0] if kind == "GroupConvolution" else 1, -1, matrices.shape[-1])
    return np.einsum("goi,gi->go", matrices, means.reshape(len(matrices), -1)).ravel()


def quantize_tensors(tensors: Iterable[Tensor], low: float, high: float) -> None:
    """Rounds tensors to 256 levels from `low` to `high`, where they are read by layers. Changes their network.

    The range is widened to contain 0, and shifted by less than a level so that 0 is one of the levels: then the zeros
    around an image are exact.
    """
    from openvino import opset13

    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (_LEVELS - 1) or 1.0
    zero = round(-low / step)
    ends = [opset13.constant(np.float32(level * step)) for level in (-zero, _LEVELS - 1 - zero)]
    for tensor in tensors:
        rounded = opset13.fake_quantize(tensor.output, *ends, *ends, _LEVELS).output(0)
        for reader in tensor.readers:
            reader.replace_source_output(rounded)
