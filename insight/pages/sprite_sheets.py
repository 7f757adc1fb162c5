"""Thumbnails in a few large pictures: a page of thousands of photos has some sheets, and not a picture for each."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from configs.activity import doing
from preprocess.images.decode import ImageError
from preprocess.machine.cores import available_cores
from trainer.data.photos import PhotoFinder, decode_photo

# Tiles in a row of a sheet, and in a column. The pictures of browsers may be 4,096 pixels wide on all devices.
COLUMNS = 20
_QUALITY = 72
_SIDES = (96, 72, 56, 40, 28)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpriteSheets:
    """Thumbnails on sheets. Tile t is on sheet t // COLUMNS², in row t // COLUMNS % COLUMNS and column t % COLUMNS.

    Attributes:
      sheets: JPEGs as `data:` URIs.
      side: the width and height of a tile in pixels.
      tiles: int32, shape [n]: the tile of each photo; -1 for a photo that has none.
    """

    sheets: tuple[str, ...]
    side: int
    tiles: np.ndarray


def make_sheets(
    photos: Sequence[tuple[PhotoFinder, str, str | None]], wanted: np.ndarray, *, max_bytes: int
) -> SpriteSheets:
    """Makes thumbnails of some photos, as large as fit.

    Args:
      photos: of n photos: what finds it, its URI, and the beginning of its SHA-256 in hexadecimal, if that is known.
      wanted: int64: which of them get one. Those that cannot be read here, or are other files now, get none.
      max_bytes: of all sheets together, as text.
    """
    side = _SIDES[0]

    def thumbnail(row: int) -> np.ndarray | None:
        finder, uri, digest = photos[row]
        photo = finder.read(uri, digest)
        if photo is None:
            return None
        try:
            pixels = decode_photo(photo[1])
        except ImageError:
            return None
        return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))

    tiles = np.full(len(photos), -1, np.int32)
    made: list[np.ndarray] = []
    with (
        doing("making thumbnails", total=len(wanted), unit="photo") as progress,
        ThreadPoolExecutor(available_cores()) as threads,
    ):
        for row, pixels in zip(wanted.tolist(), threads.map(thumbnail, wanted.tolist()), strict=True):
            if pixels is not None:
                tiles[row] = len(made)
                made.append(pixels)
            progress.advance()
    sheets: list[str] = []
    for side in _SIDES:
        sheets = _encoded(made, side)
        if sum(map(len, sheets)) <= max_bytes:
            return SpriteSheets(sheets=tuple(sheets), side=side, tiles=tiles)
    fewer = max(1, int(len(made) * max_bytes / sum(map(len, sheets)) * 0.95))
    tiles[tiles >= fewer] = -1
    return SpriteSheets(sheets=tuple(_encoded(made[:fewer], side)), side=side, tiles=tiles)


def _encoded(thumbnails: Sequence[np.ndarray], side: int) -> list[str]:
    found = []
    for start in range(0, len(thumbnails), COLUMNS**2):
        part = thumbnails[start : start + COLUMNS**2]
        rows = -(-len(part) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * side, rows * side))
        for place, pixels in enumerate(part):
            tile = Image.fromarray(pixels)
            sheet.paste(
                tile if tile.width == side else tile.resize((side, side)),
                (place % COLUMNS * side, place // COLUMNS * side),
            )
        encoded = io.BytesIO()
        sheet.save(encoded, "JPEG", quality=_QUALITY)
        found.append("data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode())
    return found
