"""A few numbers of a photo that a person can name: how bright, how sharp, how colourful it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from configs.activity import doing
from preprocess.images.decode import ImageError
from trainer.data.photos import PhotoFinder, decode_photo

# The columns of the arrays here. Only brightness depends on how much light there is; all else is a share of it.
#   brightness: the mean of the luma Y' of BT.601, in grey levels (0 to 255);
#   contrast: its standard deviation;
#   sharpness: the natural logarithm of the mean size of the luma's Laplacian (four neighbours), as a share of the
#     standard deviation;
#   warmth: the mean of red - blue;  greenness: the mean of green - (red + blue) / 2;
#   colourfulness: the mean of the largest channel - the smallest one.
PHOTO_STATISTICS = ("brightness", "contrast", "sharpness", "warmth", "greenness", "colourfulness")


def photo_statistics(pixels: np.ndarray) -> np.ndarray:
    """The statistics of a photo.

    Args:
      pixels: uint8, shape [side, side, 3], RGB: the square that the network sees.

    Returns:
      float32, shape [6], in the order of `PHOTO_STATISTICS`.
    """
    values = pixels.astype(np.float32)
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    inner = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    laplacian = np.abs(around - 4 * inner).mean()
    brightness, deviation = luma.mean(), luma.std()
    light = brightness + 1.0  # Black photos have no colours.
    return np.array(
        [
            brightness,
            deviation / light,
            np.log((laplacian + 0.1) / (deviation + 1.0)),
            (red - blue).mean() / light,
            (green - (red + blue) / 2).mean() / light,
            (values.max(axis=-1) - values.min(axis=-1)).mean() / light,
        ],
        np.float32,
    )


# A photo: what finds its file, its URI, and the beginning of the SHA-256 of its file in hexadecimal, None if not known.
NamedPhoto = tuple[PhotoFinder, str, str | None]
# Where so many photos cannot be read, the others cannot either.
_ENOUGH_MISSING = 10


def statistics_of_photos(photos: Sequence[NamedPhoto], *, size: int, limit_sec: float) -> tuple[list[int], np.ndarray]:
    """The statistics of the photos that some records name, as far as they can be read and decoded here.

    Args:
      photos: in the order in which they are read.
      size: the side of the square that the network sees.
      limit_sec: after so many seconds, no further photo is read.

    Returns:
      The places of the photos that were read, and their statistics: float32, shape [k, 6].
    """
    places: list[int] = []
    found: list[np.ndarray] = []
    ends = time.monotonic() + limit_sec
    with doing("reading photos", total=len(photos), unit="photo") as reading:
        for place, named in enumerate(photos):
            if time.monotonic() > ends or (place >= _ENOUGH_MISSING and not found):
                break
            statistics = _statistics_of_photo(*named, size=size)
            if statistics is not None:
                places.append(place)
                found.append(statistics)
            reading.advance()
    return places, np.array(found, np.float32).reshape(-1, len(PHOTO_STATISTICS))


def _statistics_of_photo(finder: PhotoFinder, uri: str, digest: str | None, *, size: int) -> np.ndarray | None:
    photo = finder.read(uri, digest)
    if photo is None:
        return None
    try:
        return photo_statistics(decode_photo(photo[1], size=size))
    except ImageError:
        return None
