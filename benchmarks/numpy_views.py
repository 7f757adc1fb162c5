"""The formulas of views in NumPy, as in `add_input_distortions` of TensorFlow's `retrain.py`.

Two things are as in this project and not as there. The random numbers come from the hash of an image, and the resize is
the one of its images: a triangle filter that becomes wider where an image is reduced. (`retrain.py` takes the four
nearest pixels.)
"""

from __future__ import annotations

import hashlib

import numpy as np

from preprocess.records.views import Views


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """An image, [height, width, channels], as a square of float64."""
    rows, columns = (_triangle_weights(length, side) for length in image.shape[:2])
    return np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.float64), columns, optimize=True)


def _triangle_weights(length: int, side: int) -> np.ndarray:
    """The weight of each of `length` pixels in each of `side` pixels: [side, length]."""
    scale = length / side
    centers = (np.arange(side) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centers[:, np.newaxis]) / max(scale, 1.0)
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def view_of(image: np.ndarray, data: bytes, view: int, views: Views, *, size: int) -> tuple[np.ndarray, float]:
    """A further view of an image.

    Args:
      image: uint8 [height, width, 3], upright.
      data: the bytes of the file of the image.
      view: the number of the view, from 1.
      views: the views.
      size: the side of the square that the network takes.

    Returns:
      The pixels before the brightness, float64 [size, size, 3], and the factor of the brightness.
    """
    seed = hashlib.sha512(b"view/1" + hashlib.sha256(data).digest() + view.to_bytes(4, "big")).digest()
    scale, left, top, mirror, brightness = (np.frombuffer(seed, ">u8", 5) >> np.uint64(11)) / 2.0**53
    margin_scale = 1.0 + views.random_crop / 100.0
    resize_scale = 1.0 + scale * (views.random_scale / 100.0)
    side = int(margin_scale * resize_scale * size + 1e-9)
    x, y = (int(place * (side - size + 1)) for place in (left, top))
    pixels = resized(image, side)[y : y + size, x : x + size]
    if views.flip_left_right and mirror < 0.5:
        pixels = pixels[:, ::-1]
    lowest, highest = 1.0 - views.random_brightness / 100.0, 1.0 + views.random_brightness / 100.0
    return pixels, lowest + brightness * (highest - lowest)
