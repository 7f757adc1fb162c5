"""Translates a network's operations to a function of JAX, which XLA compiles to one program for the device.

It knows the operations of inference graphs of convolutional networks, in the layout NHWC. All arithmetic follows
TensorFlow's definitions (https://www.tensorflow.org/api_docs/python/tf/raw_ops).

In a lower precision, convolutions and what follows them compute in it. Products are summed in float32, as matrix units
do. The scaling of pixels before the first convolution, means over the image and what follows a mean are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from preprocess.backbones.inference_graph import PIXELS
from preprocess.engines.jax_import import import_jax
from preprocess.engines.operations import Operation, Operations

Weights = Mapping[str, Any]
"""Arrays by name: NumPy's, or JAX's on a device."""

_FLOAT32 = np.dtype("float32")
_SPATIAL = (1, 2)


class UnknownOperationError(Exception):
    """The network has an operation that this module does not know; the message names it."""


def check_operations(network: Operations) -> None:
    """Raises `UnknownOperationError` if `translate` cannot translate the network. Needs no JAX."""
    for operation in network.operations:
        if operation.kind not in _KNOWN:
            raise UnknownOperationError(f"operation {operation.kind}")
        layout = operation.attributes.get("data_format", "NHWC")
        if layout != "NHWC":
            raise UnknownOperationError(f"operation {operation.kind} in the layout {layout}")


def translate(network: Operations, precision: str) -> tuple[Callable[[Weights, Any], Any], dict[str, np.ndarray]]:
    """Makes a function that JAX can trace.

    Args:
      network: the operations.
      precision: "float32", "bfloat16" or "float16".

    Returns:
      A function of the weights and of pixels, uint8 [n, height, width, 3], to embeddings, float32 [n, embedding_size];
      and its weights, in the precision. The function takes a third argument, a factor on the pixels of each image,
      float32 [n], which may be left out.

    Raises:
      UnknownOperationError: the network has an operation that is not known.
    """
    check_operations(network)
    dtype = np.dtype(import_jax().numpy.dtype(precision))
    constants = {name: array for name, array in network.arrays.items() if array.dtype.kind != "f"}
    weights = {name: array for name, array in network.arrays.items() if array.dtype.kind == "f"}
    for operation in network.operations:
        if operation.kind in _KERNELS:
            name = operation.inputs[1]
            if name in weights:
                weights[name] = _KERNELS[operation.kind](network.arrays[name]).astype(dtype)

    def embed(arrays: Weights, pixels: Any, brightness: Any = None) -> Any:
        values: dict[str, Any] = {**constants, **arrays, PIXELS: pixels}
        for operation in network.operations:
            step = _Step(operation, dtype)
            value = _KNOWN[operation.kind](step, *(values[name] for name in operation.inputs))
            if isinstance(value, tuple):
                values.update({f"{operation.name}:{number}": one for number, one in enumerate(value)})
                value = value[0]
            if brightness is not None and operation.kind == "Cast" and operation.inputs[0] == PIXELS:
                value = value * brightness[:, None, None, None]
            values[operation.name] = value
        return values[network.output].astype(_FLOAT32)

    return embed, weights


class _Step:
    """An operation that is being translated, and the precision of convolutions."""

    def __init__(self, operation: Operation, dtype: np.dtype):
        self.attributes = operation.attributes
        self.dtype = dtype
        self.jax = import_jax()
        self.jnp = self.jax.numpy
        self.lax = self.jax.lax

    @property
    def products(self) -> Any:
        """How exact products are: float32 means float32, and not the TF32 of matrix units."""
        return self.lax.Precision.HIGHEST if self.dtype == _FLOAT32 else self.lax.Precision.DEFAULT

    @property
    def padding(self) -> Any:
        """As XLA takes it: "SAME", "VALID" or pairs for height and width."""
        text = self.attributes["padding"]
        if text != "EXPLICIT":
            return text
        pads = self.attributes["explicit_paddings"]
        return [(pads[2 * axis], pads[2 * axis + 1]) for axis in _SPATIAL]


# Kernels come as height, width, inputs, outputs. The matrix units of GPUs want the inputs last: prepared once, they are
# not transposed for each batch.
def _kernel(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(3, 0, 1, 2))


def _depthwise_kernel(array: np.ndarray) -> np.ndarray:
    height, width, channels, multiplier = array.shape
    return _kernel(array.reshape(height, width, 1, channels * multiplier))


_KERNELS = {"Conv2D": _kernel, "DepthwiseConv2dNative": _depthwise_kernel}


def _convolve(step: _Step, x: Any, kernel: Any, *, groups: int) -> Any:
    return step.lax.conv_general_dilated(
        x.astype(step.dtype),
        kernel,
        [step.attributes["strides"][axis] for axis in _SPATIAL],
        step.padding,
        rhs_dilation=[(step.attributes.get("dilations") or [1] * 4)[axis] for axis in _SPATIAL],
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
        feature_group_count=groups,
        precision=step.products,
    )


def _conv2d(step: _Step, x: Any, kernel: Any) -> Any:
    return _convolve(step, x, kernel, groups=x.shape[-1] // kernel.shape[-1])


def _depthwise(step: _Step, x: Any, kernel: Any) -> Any:
    return _convolve(step, x, kernel, groups=x.shape[-1])


def _matmul(step: _Step, a: Any, b: Any) -> Any:
    a = a.T if step.attributes.get("transpose_a") else a
    b = b.T if step.attributes.get("transpose_b") else b
    return step.jnp.matmul(a, b.astype(a.dtype), precision=step.lax.Precision.HIGHEST)


def _elementwise(name: str) -> Callable[..., Any]:
    """An operation of two values that NumPy knows by this name."""

    def compute(step: _Step, a: Any, b: Any) -> Any:
        # A weight takes the precision of the activations that it meets. A number is a weight too.
        if a.dtype != b.dtype and a.dtype.kind != "i" and b.dtype.kind != "i":
            dtype = b.dtype if a.ndim < b.ndim else a.dtype
            a, b = a.astype(dtype), b.astype(dtype)
        return getattr(step.jnp, name)(a, b)

    return compute


def _of_one(compute: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operation of one value, from a function of `jax` and the value."""
    return lambda step, x: compute(step.jax, x)


def _bias_add(step: _Step, x: Any, bias: Any) -> Any:
    return x + bias.astype(x.dtype)


def _leaky_relu(step: _Step, x: Any) -> Any:
    return step.jnp.where(x > 0, x, x * np.asarray(step.attributes["alpha"], x.dtype))


def _window(step: _Step, x: Any, start: float, combine: Any) -> Any:
    return step.lax.reduce_window(
        x, np.asarray(start, x.dtype), combine, step.attributes["ksize"], step.attributes["strides"],
        [(0, 0), *step.padding, (0, 0)] if step.attributes["padding"] == "EXPLICIT" else step.padding,
    )  # fmt: skip


def _max_pool(step: _Step, x: Any) -> Any:
    return _window(step, x, -np.inf, step.lax.max)


def _avg_pool(step: _Step, x: Any) -> Any:
    if step.attributes["padding"] == "VALID" and list(x.shape[1:3]) == step.attributes["ksize"][1:3]:
        return x.astype(_FLOAT32).mean(axis=_SPATIAL, keepdims=True)
    sums = _window(step, x.astype(_FLOAT32), 0, step.lax.add)
    # Of the pixels of the image only: padding does not count.
    counts = _window(step, step.jnp.ones((1, *x.shape[1:3], 1), _FLOAT32), 0, step.lax.add)
    return (sums / counts).astype(x.dtype)


def _mean(step: _Step, x: Any, axes: Any) -> Any:
    axis = tuple(int(one) for one in np.ravel(axes))
    return x.astype(_FLOAT32).mean(axis=axis, keepdims=bool(step.attributes.get("keep_dims")))


def _max(step: _Step, x: Any, axes: Any) -> Any:
    axis = tuple(int(one) for one in np.ravel(axes))
    return x.max(axis=axis, keepdims=bool(step.attributes.get("keep_dims")))


def _concat(step: _Step, *values: Any) -> Any:
    *parts, axis = values
    return step.jnp.concatenate(parts, axis=int(axis))


def _pad(step: _Step, x: Any, pads: Any, value: Any = 0) -> Any:
    return step.jnp.pad(x, [tuple(map(int, pair)) for pair in pads], constant_values=value)


def _batch_normalization(step: _Step, x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
    factor = scale / step.jnp.sqrt(variance + step.attributes["epsilon"])
    return x * factor.astype(x.dtype) + (offset - mean * factor).astype(x.dtype)


# Shapes are known when the function is traced: what computes them works on NumPy's numbers.
def _shape(step: _Step, x: Any) -> Any:
    return np.asarray(x.shape, np.int32)


def _pack(step: _Step, *values: Any) -> Any:
    if all(isinstance(value, np.ndarray | np.generic) for value in values):
        return np.stack(values, axis=step.attributes["axis"])
    return step.jnp.stack(values, axis=step.attributes["axis"])


def _strided_slice(step: _Step, x: Any, begin: Any, end: Any, strides: Any) -> Any:
    masks = {name: step.attributes.get(f"{name}_mask", 0) for name in ("begin", "end", "shrink_axis")}
    if step.attributes.get("ellipsis_mask") or step.attributes.get("new_axis_mask"):
        raise UnknownOperationError("operation StridedSlice with an ellipsis or a new axis")

    def one(axis: int) -> Any:
        bit = 1 << axis
        if masks["shrink_axis"] & bit:
            return int(begin[axis])
        first = None if masks["begin"] & bit else int(begin[axis])
        last = None if masks["end"] & bit else int(end[axis])
        return slice(first, last, int(strides[axis]))

    return x[tuple(map(one, range(len(begin))))]


def _reshape(step: _Step, x: Any, shape: Any) -> Any:
    return x.reshape([int(size) for size in np.ravel(shape)])


def _squeeze(step: _Step, x: Any) -> Any:
    return x.squeeze(axis=tuple(step.attributes.get("squeeze_dims") or ()) or None)


def _cast(step: _Step, x: Any) -> Any:
    return x.astype(step.attributes["DstT"])


_KNOWN: dict[str, Callable[..., Any]] = {
    "AvgPool": _avg_pool,
    "BiasAdd": _bias_add,
    "Cast": _cast,
    "ConcatV2": _concat,
    "Conv2D": _conv2d,
    "DepthwiseConv2dNative": _depthwise,
    "Elu": _of_one(lambda jax, x: jax.nn.elu(x)),
    "Erf": _of_one(lambda jax, x: jax.lax.erf(x)),
    "Erfc": _of_one(lambda jax, x: jax.lax.erfc(x)),
    "Exp": _of_one(lambda jax, x: jax.numpy.exp(x)),
    "ExpandDims": lambda step, x, axis: step.jnp.expand_dims(x, int(axis)),
    "FusedBatchNormV3": _batch_normalization,
    "Identity": _of_one(lambda jax, x: x),
    "IdentityN": lambda step, *values: values,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Max": _max,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Neg": _of_one(lambda jax, x: -x),
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "Relu": _of_one(lambda jax, x: jax.nn.relu(x)),
    "Relu6": _of_one(lambda jax, x: jax.nn.relu6(x)),
    "Reshape": _reshape,
    "Rsqrt": _of_one(lambda jax, x: jax.lax.rsqrt(x)),
    "Selu": _of_one(lambda jax, x: jax.nn.selu(x)),
    "Shape": _shape,
    "Sigmoid": _of_one(lambda jax, x: jax.nn.sigmoid(x)),
    "Softplus": _of_one(lambda jax, x: jax.nn.softplus(x)),
    "Sqrt": _of_one(lambda jax, x: jax.numpy.sqrt(x)),
    "Square": _of_one(lambda jax, x: x * x),
    "Squeeze": _squeeze,
    "StopGradient": _of_one(lambda jax, x: x),
    "StridedSlice": _strided_slice,
    "Tanh": _of_one(lambda jax, x: jax.numpy.tanh(x)),
    "Transpose": lambda step, x, order: step.jnp.transpose(x, [int(axis) for axis in order]),
    **{
        kind: _elementwise(name)
        for kind, name in {
            "Add": "add",
            "AddV2": "add",
            "Maximum": "maximum",
            "Minimum": "minimum",
            "Mul": "multiply",
            "RealDiv": "divide",
            "Sub": "subtract",
        }.items()
    },
}
