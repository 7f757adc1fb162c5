"""The perceptual hash of an image: 256 bits that stay nearly the same if it is re-encoded, resized or brightened.

It follows PDQ (Facebook, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm", 2019): the
luminance is averaged over the cells of a grid, and 16 x 16 coefficients of the discrete cosine transform of these means
give a bit each. There are two differences. A bit is the sign of its coefficient, not whether it exceeds the median.
So the hash of a mirrored image follows from the hash: coefficients of odd horizontal frequencies change their sign,
the others stay (`mirrored`). And all numbers are integers, small enough that float64 holds each product and each sum
exactly, so the bits do not depend on the machine, the library, or the other images of the batch.
"""

from __future__ import annotations

import functools

import numpy as np

from preprocess.images.compiled import compiled_loops

HASH_BYTES = 32
# It stands in the definition of a job. A change to the bits of any image must change it.
HASH_NAME = "dct16/1"

_FREQUENCIES = 16
_CELLS = 32
# Red, green and blue; close to the weights of ITU-R BT.601 (0.30, 0.59, 0.11).
_LUMINANCE = np.array([5, 9, 2], np.int64)
# So many rows and columns of a cell are averaged. More cost time and change next to nothing.
_SAMPLES = 3
# Images whose intermediate numbers fit in a core's cache together.
_AT_ONCE = 8
_COSINE_BITS = 12


def perceptual_hashes(pixels: np.ndarray) -> np.ndarray:
    """The hashes of decoded images.

    Args:
      pixels: uint8, shape [n, height, width, 3], of any size.

    Returns:
      uint8, shape [n, 32]. The bit of the vertical frequency u and the horizontal frequency v, both from 1 to 16, is
      bit 7 - (v - 1) % 8 of byte 2 (u - 1) + (v - 1) // 8. An image of one colour has the hash 0.

    Raises:
      ValueError: the shape or dtype is another.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8 [n, height, width, 3]. Received: {pixels.dtype} {list(pixels.shape)}")
    hashes = np.empty((len(pixels), HASH_BYTES), np.uint8)
    for start in range(0, len(pixels), _AT_ONCE):
        means = _cell_sums(pixels[start : start + _AT_ONCE])
        waves = _waves()
        coefficients = waves @ means @ waves.T
        bits = (coefficients > 0).reshape(len(means), -1)
        hashes[start : start + _AT_ONCE] = np.packbits(bits, axis=1)
    return hashes


def mirrored(hashes: np.ndarray) -> np.ndarray:
    """The hashes of the same images mirrored left to right: uint8, shape [n, 32], of any [n, 32].

    It is exact but for coefficients that are zero, which both images have as a bit that is 0.
    """
    return hashes ^ _odd_columns()


@functools.cache
def _odd_columns() -> np.ndarray:
    odd = np.broadcast_to(np.arange(1, _FREQUENCIES + 1) % 2 == 1, (_FREQUENCIES, _FREQUENCIES))
    return np.packbits(odd)


@functools.cache
def _waves() -> np.ndarray:
    """The cosines of frequencies 1 to 16 at the cells, as whole numbers: float64 [16, 32]."""
    angles = np.pi * np.outer(np.arange(1, _FREQUENCIES + 1), 2 * np.arange(_CELLS) + 1) / (2 * _CELLS)
    return np.rint(np.cos(angles) * (1 << _COSINE_BITS))


@functools.lru_cache(maxsize=16)
def _samples(length: int) -> tuple[np.ndarray, ...]:
    """For each of the samples of a cell, the rows (or columns) that it takes of all cells. They are symmetric."""
    width = max(1, -(-length // _CELLS))
    lower = np.arange(_CELLS // 2) * (length - width) // (_CELLS - 1)
    starts = np.concatenate([lower, (length - width - lower)[::-1]])
    count = min(_SAMPLES, width)
    half = np.arange((count + 1) // 2) * (width - 1) // max(1, count - 1)
    within = np.unique(np.concatenate([half, width - 1 - half]))
    return tuple(starts + offset for offset in within.tolist())


@functools.lru_cache(maxsize=16)
def _sample_table(length: int) -> np.ndarray:
    """What `_samples` gives as one table: int32 [samples, 32]."""
    return np.stack(_samples(length)).astype(np.int32)


def _cell_sums(pixels: np.ndarray) -> np.ndarray:
    """The sums of the luminance over the cells: float64 of whole numbers, shape [n, 32, 32]."""
    loops = compiled_loops()
    if loops is None:
        return _cell_sums_by_numpy(pixels)
    number, height, width, _ = pixels.shape
    sums = np.empty((number, _CELLS, _CELLS))
    tables = _sample_table(height), _sample_table(width)
    loops.cell_sums(np.ascontiguousarray(pixels), (number, height, width), *tables, tuple(_LUMINANCE.tolist()), sums)
    return sums


def _cell_sums_by_numpy(pixels: np.ndarray) -> np.ndarray:
    """`_cell_sums` without the compiled loops, in several times the time."""
    number, height, width, _ = pixels.shape
    rows = _samples(height)
    # At most 4 x 255 here, and 4 times that below, so uint16 is enough.
    of_rows = pixels[:, rows[0]].astype(np.uint16)
    for row in rows[1:]:
        of_rows += pixels[:, row]
    # Columns first, so that what is added lies side by side.
    by_column = np.ascontiguousarray(of_rows.transpose(0, 2, 1, 3)).reshape(number, width, _CELLS * 3)
    columns = _samples(width)
    sums = by_column[:, columns[0]]
    for column in columns[1:]:
        sums += by_column[:, column]
    luminance = sums.reshape(number, _CELLS, _CELLS, 3).astype(np.int64) @ _LUMINANCE
    return np.asarray(luminance.transpose(0, 2, 1), np.float64)
