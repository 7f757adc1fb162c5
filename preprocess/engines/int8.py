"""Makes int8 networks: weights and activations of 8 bits, with ranges calibrated on some of the user's images."""

from __future__ import annotations

import contextlib
import hashlib
import io
from typing import Any

import numpy as np

from configs.activity import Activity, doing
from configs.errors import InputError
from preprocess.engines.openvino_import import import_nncf, import_openvino

# A change to the settings below must change this number: int8 networks are kept on disk from run to run.
CALIBRATION_VERSION = 2

# The number of images that the ranges are calibrated on; of those, the first that the mean is corrected on. With 300, a
# head on the flowers with EfficientNet-Lite0 was as accurate, and the calibration took several times as long.
CALIBRATION_IMAGES = 48
_MEAN_IMAGES = 32
# With fewer than this, the ranges depend on the choice of images.
MIN_IMAGES = 16

# The operations of OpenVINO that have weights.
_LAYERS = frozenset({"Convolution", "GroupConvolution", "MatMul"})


def calibrate(network: Any, pixels: np.ndarray) -> Any:
    """Makes an int8 network. Deterministic; takes about three times as long as embedding the images, and some seconds.

    The first and the last layer are not quantized. They are a small part of the arithmetic and lose most: without them,
    the median cosine on photos rises from 0.987 to 0.993 (EfficientNet-Lite0, ImageNet).

    Args:
      network: an `ov.Model`, uint8 [n, size, size, 3] to float32 [n, embedding_size]. Not changed.
      pixels: uint8 [n, size, size, 3], images like those that will be embedded; `CALIBRATION_IMAGES` are best.

    Returns:
      An `ov.Model` of the same inputs and outputs.

    Raises:
      InputError: NNCF is not installed, or there are fewer than `MIN_IMAGES` images.
    """
    with doing("loading NNCF"):
        nncf = import_nncf()
    if len(pixels) < MIN_IMAGES:
        raise InputError(
            f"precision: int8 needs at least {MIN_IMAGES} images that can be read to calibrate with. "
            f"Received: {len(pixels)}; pass --precision bfloat16 for so few."
        )
    steps = "calibrating int8, once for these images"
    with (
        doing(f"{steps}: ranges of values", total=len(pixels), unit="image") as ranges,
        contextlib.redirect_stdout(io.StringIO()),  # progress bars
    ):

        def counted(image: np.ndarray) -> np.ndarray:
            ranges.done += 1
            if ranges.done == len(pixels):
                # NNCF does not call back while it corrects the layers, one after the other.
                ranges.becomes(f"{steps}: biases")
            return image

        dataset = nncf.Dataset([image[np.newaxis] for image in pixels], counted)
        quantized = nncf.quantize(
            network.clone(),
            dataset,
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_first_and_last_layer(network)),
        )
    some = pixels[:_MEAN_IMAGES]
    with doing(f"{steps}: mean", total=2 * len(some), unit="image") as means:
        offset = _mean_embedding(network, some, means) - _mean_embedding(quantized, some, means)
    _correct_mean(quantized, offset)
    return quantized


def _first_and_last_layer(network: Any) -> list[str]:
    layers = [one.get_friendly_name() for one in network.get_ordered_ops() if one.get_type_name() in _LAYERS]
    return list(dict.fromkeys([*layers[:1], *layers[-1:]]))


def _mean_embedding(network: Any, pixels: np.ndarray, progress: Activity) -> np.ndarray:
    compiled = import_openvino().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    step = 16
    total = np.zeros((), np.float64)
    for start in range(0, len(pixels), step):
        batch = compiled(pixels[start : start + step])[0]
        total = total + batch.sum(axis=0, dtype=np.float64)
        progress.advance(len(batch))
    return total / len(pixels)


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
