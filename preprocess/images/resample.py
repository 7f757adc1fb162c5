"""Resizes a decoded picture to the square that a network takes: Pillow's `BILINEAR`, to the bit.

No library resizes with SIMD to Pillow's pixels: the others have weights of 16 bits and round other numbers. Our
compiled loops (`_pixels.c`) have Pillow's weights. They read the pixels where Pillow has them, and write RGB where it
is wanted, so nothing is converted or copied. Pillow itself resizes where the loops are missing, and where they do not
apply: a picture that Pillow holds in several blocks of memory, or in memory that is not its own; one that is more than
100 times as high as wide; a reduction that `reducing_gap` begins by averaging, or one by more than about 2000. The
pixels are the same. Before the first image, `_differs` tries whether they are.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

from preprocess.images.compiled import compiled_loops, why_missing

Box = tuple[float, float, float, float]

_BYTES_PER_PIXEL = {"L": 1, "RGB": 4}  # as Pillow holds them
_FLIPS = {
    (True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, True): Image.Transpose.FLIP_TOP_BOTTOM,
    (True, True): Image.Transpose.ROTATE_180,
}


def resize(
    image: Image.Image,
    size: int,
    *,
    box: Box | None = None,
    reducing_gap: float | None = None,
    mirrored: bool = False,
    flipped: bool = False,
) -> np.ndarray:
    """Resizes a picture, or a part of it, to a square of RGB.

    Args:
      image: of mode L or RGB, loaded.
      size: the side of the square.
      box: what is resized, in pixels of the image: left, top, right, bottom; None for all of it.
      reducing_gap: as of `PIL.Image.Image.resize`.
      mirrored: left and right of the square are swapped.
      flipped: top and bottom of the square are swapped.

    Returns:
      uint8 [size, size, 3]: what `image.resize((size, size), BILINEAR, box, reducing_gap)` gives, as RGB.
    """
    loops, _ = _loops()
    if loops is not None and not _in_other_steps(image, size, box, reducing_gap):
        square = _resize_compiled(loops, image, size, box or (0, 0, *image.size), mirrored, flipped)
        if square is not None:
            return square
    return _resize_with_pillow(image, size, box, reducing_gap, mirrored, flipped)


def resize_state() -> str:
    """What resizes in this process, and if Pillow does, why: a few words for reports. It also loads what is needed."""
    return _loops()[1]


@functools.cache
def _loops() -> tuple[Any | None, str]:
    """The compiled loops, None if Pillow resizes; and a few words about it."""
    loops = compiled_loops()
    if loops is None:
        reason = why_missing()
    # Without an alignment, which PILLOW_ALIGNMENT would set, nothing lies between the rows of an image.
    elif Image.core.get_alignment() != 1:
        reason = "PILLOW_ALIGNMENT is set"
    elif _differs(loops):
        reason = "this version of Pillow resizes to other pixels than the compiled loops"
    else:
        return loops, f"compiled ({loops.KIND})"
    return None, f"Pillow ({reason})"


def _differs(loops: Any) -> bool:
    """Whether the compiled loops give other pixels than the Pillow that is installed, on a few pictures."""
    for mode, (width, height), box in (
        ("RGB", (97, 61), None),
        ("RGB", (211, 150), (20.3, 10.2, 170.8, 149.9)),
        ("L", (40, 131), None),
    ):
        count = width * height * (3 if mode == "RGB" else 1)
        noise = (np.arange(count, dtype=np.uint64) ** 3 * np.uint64(2654435761) >> np.uint64(17)).astype(np.uint8)
        image = Image.frombytes(mode, (width, height), noise.tobytes())
        found = _resize_compiled(loops, image, 48, box or (0, 0, width, height), False, False)
        if found is None or not np.array_equal(found, _resize_with_pillow(image, 48, box, None, False, False)):
            return True
    return False


def _in_other_steps(image: Image.Image, size: int, box: Box | None, reducing_gap: float | None) -> bool:
    """Whether Pillow resizes the columns before the rows, or averages whole pixels before it resizes."""
    if image.height > 100 * image.width and size < image.height:
        return True
    if reducing_gap is None:
        return False
    left, top, right, bottom = box or (0, 0, *image.size)
    return max(int((right - left) / size / reducing_gap), int((bottom - top) / size / reducing_gap)) > 1


def _resize_compiled(
    loops: Any, image: Image.Image, size: int, box: Box, mirrored: bool, flipped: bool
) -> np.ndarray | None:
    # Pillow marks images that are views of somebody else's memory. It cannot export these, and crashes (12.3).
    if image.readonly:
        return None
    try:
        _, array = image.__arrow_c_array__()
    except ValueError:  # several blocks of memory
        return None
    square = np.empty((size, size, 3), np.uint8)
    channels = _BYTES_PER_PIXEL[image.mode]
    done = loops.resize(array, channels, image.size, box, square, (size, size), mirrored, flipped)
    return square if done else None


def _resize_with_pillow(
    image: Image.Image, size: int, box: Box | None, reducing_gap: float | None, mirrored: bool, flipped: bool
) -> np.ndarray:
    small = image.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap)
    if mirrored or flipped:
        small = small.transpose(_FLIPS[mirrored, flipped])  # a quarter of the time that NumPy takes
    return np.array(small if small.mode == "RGB" else small.convert("RGB"))
