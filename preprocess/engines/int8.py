"""Makes int8 networks: weights and activations of 8 bits, with ranges calibrated on some of the user's images.

It is done here and not by NNCF, the tool of Intel: for Inception v3 that took 26 core-seconds, and this takes 7 (48
images, a busy machine). NNCF runs the network several times, an image at a time, and compiles a small network for each
layer to correct its bias. Here one pass of batches gives all that is needed. Embeddings are also closer to those of
float32: EfficientNet-Lite0 with its ImageNet weights 0.998 in place of 0.992 (median cosine).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.activity import Activity, doing
from configs.errors import InputError
from preprocess.engines.openvino_import import import_openvino
from preprocess.engines.quantized_layers import (
    Layer,
    Tensor,
    find_layers,
    find_tensors,
    quantize_tensors,
    quantize_weights,
)

# A change to the numbers that the calibration gives must change this number: int8 networks are kept on disk from run to
# run, and records of two calibrations must not be mixed.
CALIBRATION_VERSION = 3

# The number of images that the ranges are calibrated on. With 300, a head on the flowers with EfficientNet-Lite0 was as
# accurate.
CALIBRATION_IMAGES = 48
# With fewer than this, the ranges depend on the choice of images.
MIN_IMAGES = 16

_BATCH = 8


def calibrate(network: Any, pixels: np.ndarray) -> Any:
    """Makes an int8 network. Deterministic; takes about as long as embedding the images in float32, and a second.

    The first and the last layer are not quantized. They are a small part of the arithmetic and lose most: without them,
    the median cosine on photos rose from 0.987 to 0.993 (EfficientNet-Lite0, ImageNet).

    Args:
      network: an `ov.Model`, uint8 [n, size, size, 3] to float32 [n, embedding_size]. Not changed.
      pixels: uint8 [n, size, size, 3], images like those that will be embedded; `CALIBRATION_IMAGES` are best.

    Returns:
      An `ov.Model` of the same inputs and outputs.

    Raises:
      InputError: there are fewer than `MIN_IMAGES` images.
    """
    if len(pixels) < MIN_IMAGES:
        raise InputError(
            f"precision: int8 needs at least {MIN_IMAGES} images that can be read to calibrate with. "
            f"Received: {len(pixels)}; pass --precision bfloat16 for so few."
        )
    quantized = network.clone()
    layers = find_layers(quantized)[1:-1]
    groups = find_tensors(layers)
    steps = "calibrating int8, once for these images"
    with doing(f"{steps}: ranges of values", total=len(pixels), unit="image") as progress:
        ranges, means = _observe(quantized, layers, groups, pixels, progress)
    with doing(f"{steps}: weights"):
        for group, (low, high) in zip(groups, ranges, strict=True):
            quantize_tensors(group, low, high)
        for layer, mean in zip(layers, means, strict=True):
            quantize_weights(layer, mean)
        quantized.validate_nodes_and_infer_types()
    return quantized


def _observe(
    network: Any, layers: Sequence[Layer], groups: Sequence[Sequence[Tensor]], pixels: np.ndarray, progress: Activity
) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
    """Runs a network in float32 once, with other outputs: reductions of the values between its operations.

    Returns:
      The range of each group of tensors, and for each layer the mean of each channel of its input, float64 [channels].
      A range ends at the means over the images of their lowest and of their highest values, as in NNCF: what few images
      exceed would make the levels coarser for all.
    """
    from openvino import opset13

    def reduced(reduce: Any, output: Any, *kept: int) -> Any:
        axes = [axis for axis in range(len(output.get_partial_shape())) if axis not in kept]
        return reduce(output, opset13.constant(axes, np.int64), False).output(0) if axes else output

    tensors = [tensor.output for group in groups for tensor in group]
    # Several layers may read the same.
    inputs = {_name_of_input(layer): (layer.data.get_source_output(), layer.input_channel_axis) for layer in layers}
    outputs = [
        *(reduced(opset13.reduce_min, output, 0) for output in tensors),
        *(reduced(opset13.reduce_max, output, 0) for output in tensors),
        *(reduced(opset13.reduce_mean, output, 0, axis) for output, axis in inputs.values()),
    ]
    found = iter(_run(outputs, network.get_parameters(), pixels, progress))
    lows = [_of_images(next(found), len(pixels)).min(axis=1) for _ in tensors]
    highs = [_of_images(next(found), len(pixels)).max(axis=1) for _ in tensors]
    means = {name: next(found).mean(axis=0, dtype=np.float64) for name in inputs}
    ranges, first = [], 0
    for group in groups:
        members = slice(first, first := first + len(group))
        low, high = np.min(lows[members], axis=0), np.max(highs[members], axis=0)
        ranges.append((float(low.mean(dtype=np.float64)), float(high.mean(dtype=np.float64))))
    return ranges, [means[_name_of_input(layer)] for layer in layers]


def _of_images(values: np.ndarray, count: int) -> np.ndarray:
    """The values by image, [count, values of an image].

    Some networks cut images into windows, which then stand in their place. Constants are the same for all images.
    """
    return values.reshape(count, -1) if len(values) % count == 0 else np.broadcast_to(values, (count, len(values)))


def _name_of_input(layer: Layer) -> tuple[str, int]:
    output = layer.data.get_source_output()
    return output.get_node().get_name(), output.get_index()


def _run(outputs: Sequence[Any], parameters: Sequence[Any], pixels: np.ndarray, progress: Activity) -> list[np.ndarray]:
    """The values of outputs of operations for all images, in float32."""
    if not outputs:
        return []  # A network of at most two layers.
    ov = import_openvino()
    network = ov.Model(list(outputs), parameters)
    compiled = ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batches = []
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        found = compiled(batch)
        batches.append([found[number].copy() for number in range(len(outputs))])
        progress.advance(len(batch))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def digest_of_pixels(pixels: np.ndarray) -> str:
    """The digest of a set of calibration images, and of the version of the calibration."""
    digest = hashlib.sha256(f"{CALIBRATION_VERSION} {pixels.dtype}{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return f"sha256:{digest.hexdigest()}"
