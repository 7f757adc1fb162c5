"""Makes int8 networks: weights and activations of 8 bits, with ranges calibrated on some of the user's images."""

from __future__ import annotations

import dataclasses
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

# A change to the settings below must change this number: int8 networks are kept on disk from run to run.
CALIBRATION_VERSION = 3

# The number of images that the ranges are calibrated on; of those, the first that the mean is corrected on. With 300, a
# head on the flowers with EfficientNet-Lite0 was as accurate, and the calibration took several times as long.
CALIBRATION_IMAGES = 48
_MEAN_IMAGES = 32
# With fewer than this, the ranges depend on the choice of images.
MIN_IMAGES = 16

_BATCH = 8


def calibrate(network: Any, pixels: np.ndarray) -> Any:
    """Makes an int8 network. Deterministic; takes about three times as long as embedding the images, and some seconds.

    The range of a tensor is the mean over the images of its smallest and of its largest value, as in NNCF: what few
    images exceed would make the levels of all others coarser.

    The first and the last layer are not quantized. They are a small part of the arithmetic and lose most: without them,
    the median cosine on photos rises from 0.987 to 0.993 (EfficientNet-Lite0, ImageNet).

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
    with doing(f"{steps}: ranges of values", total=len(pixels), unit="image") as ranges:
        observed = _observe(quantized, layers, groups, pixels, ranges)
    with doing(f"{steps}: weights"):
        for group, (low, high) in zip(groups, observed.ranges, strict=True):
            quantize_tensors(group, low, high)
        for layer, means in zip(layers, observed.means, strict=True):
            quantize_weights(layer, means)
        quantized.validate_nodes_and_infer_types()
    some = min(_MEAN_IMAGES, len(pixels))
    with doing(f"{steps}: mean", total=some, unit="image") as embedded:
        (embeddings,) = _run(quantized, pixels[:some], embedded)
    _correct_mean(quantized, (observed.embeddings[:some] - embeddings).mean(axis=0, dtype=np.float64))
    return quantized


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Observed:
    """What a network computes for some images, in float32.

    Attributes:
      embeddings: float32 [n, embedding_size].
      ranges: the lowest and the highest value of each group of tensors.
      means: for each layer, the mean of each channel of its input, float64 [input channels].
    """

    embeddings: np.ndarray
    ranges: list[tuple[float, float]]
    means: list[np.ndarray]


def _observe(
    network: Any, layers: Sequence[Layer], groups: Sequence[Sequence[Tensor]], pixels: np.ndarray, progress: Activity
) -> _Observed:
    """Runs a network once, with further outputs: reductions of the values between its operations."""
    from openvino import opset13

    def reduced(reduce: Any, output: Any, *kept: int) -> Any:
        axes = [axis for axis in range(len(output.get_partial_shape())) if axis not in kept]
        return reduce(output, opset13.constant(axes, np.int64), False).output(0) if axes else output

    tensors = [tensor.output for group in groups for tensor in group]
    inputs = {_name(layer): (layer.data.get_source_output(), layer.input_channel_axis) for layer in layers}
    embeddings, *others = _run(
        import_openvino().Model(
            [
                network.get_results()[0].input_value(0),
                *(reduced(opset13.reduce_min, output, 0) for output in tensors),
                *(reduced(opset13.reduce_max, output, 0) for output in tensors),
                *(reduced(opset13.reduce_mean, output, 0, axis) for output, axis in inputs.values()),
            ],
            network.get_parameters(),
        ),
        pixels,
        progress,
    )
    lowest, highest = others[: len(tensors)], others[len(tensors) : 2 * len(tensors)]
    means = dict(zip(inputs, others[2 * len(tensors) :], strict=True))
    ranges, first = [], 0
    for group in groups:
        of_group = slice(first, first := first + len(group))
        ranges.append(
            (
                float(np.mean(np.min(lowest[of_group], axis=0), dtype=np.float64)),
                float(np.mean(np.max(highest[of_group], axis=0), dtype=np.float64)),
            )
        )
    return _Observed(
        embeddings=embeddings,
        ranges=ranges,
        means=[means[_name(layer)].mean(axis=0, dtype=np.float64) for layer in layers],
    )


def _name(layer: Layer) -> tuple[str, int]:
    """The name of what a layer reads; other layers may read it, too."""
    output = layer.data.get_source_output()
    return output.get_node().get_name(), output.get_index()


def _run(network: Any, pixels: np.ndarray, progress: Activity) -> list[np.ndarray]:
    """All outputs of a network in float32, each for all images."""
    compiled = import_openvino().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batches = []
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        found = compiled(batch)
        batches.append([found[port].copy() for port in compiled.outputs])
        progress.advance(len(batch))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _correct_mean(network: Any, offset: np.ndarray) -> None:
    """Adds a constant to the embeddings.

    Rounding shifts every unit by about the same amount for all images, and the shifts pass from layer to layer. They
    cause most of the error: the correction raises the median cosine on photos from 0.987 to 0.998 (random weights).
    """
    from openvino import opset13

    result = network.get_results()[0].input(0)
    embeddings = result.get_source_output()
    names = embeddings.get_names()
    corrected = opset13.add(embeddings, opset13.constant(offset.astype(np.float32))).output(0)
    embeddings.set_names(set())
    corrected.set_names(names)
    result.replace_source_output(corrected)
    network.validate_nodes_and_infer_types()


def digest_of_pixels(pixels: np.ndarray) -> str:
    """The digest of a set of calibration images, and of the version of the calibration."""
    digest = hashlib.sha256(f"{CALIBRATION_VERSION} {pixels.dtype}{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return f"sha256:{digest.hexdigest()}"
