"""What the page of a map is made of: compact, since the page holds all of 50,000 photos."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np

from insight.data.embedded_photos import EmbeddedPhotos
from insight.pages.sprite_sheets import COLUMNS, SpriteSheets

_GRID = (1 << 16) - 1


def map_data(
    photos: EmbeddedPhotos,
    positions: np.ndarray,
    *,
    set_names: Sequence[str],
    links: Sequence[str],
    sheets: SpriteSheets,
    predicted: Sequence[str | None] | None,
    is_wrong: np.ndarray | None,
) -> dict[str, Any]:
    """What the script of the page reads. Arrays of numbers are base64 of little-endian integers.

    Args:
      photos: the n photos of the map.
      positions: float32, shape [n, 2].
      set_names: a name for each set of the photos.
      links: the address of each photo; empty where it is not known.
      sheets: the thumbnails.
      predicted: what a model said of each photo, None where it said nothing; None for all if nothing is known.
      is_wrong: int8, shape [n]: 1 if the prediction is wrong, 0 if it is right, -1 if that is not known.
    """
    low = positions.min(axis=0)
    width = float(np.ptp(positions, axis=0).max()) or 1.0
    placed = np.rint((positions - low) / width * _GRID).astype("<u2")
    uri_folders, uri_numbers, names = _folders(photos.uris.tolist())
    # A photo is called in its address as it is in its URI, or it has no address.
    ends = [urllib.parse.quote(name, errors="surrogateescape") for name in names]
    known = [link.removesuffix(end) if link.endswith(f"/{end}") else "" for link, end in zip(links, ends, strict=True)]
    link_folders = list(dict.fromkeys(known))
    at = {folder: number for number, folder in enumerate(link_folders)}
    answers = list(dict.fromkeys(answer for answer in predicted or () if answer is not None))
    answer_at: dict[str | None, int] = {answer: number for number, answer in enumerate(answers)}
    return {
        "positions": _packed(placed, "<u2"),
        "height": float(np.ptp(positions[:, 1])) / width,
        "names": names,
        "uri_folders": uri_folders,
        "uri_folder": _packed(uri_numbers, "<u4"),
        "link_folders": link_folders,
        "link_folder": _packed([at[folder] for folder in known], "<u4"),
        "digests": base64.b64encode(np.ascontiguousarray(photos.image_digests).tobytes()).decode(),
        "labels": list(photos.labels),
        "label_counts": _packed(photos.label_counts, "<u2"),
        "label_ids": _packed(photos.label_ids, "<u4"),
        "sets": list(set_names),
        "set": _packed(photos.set_numbers, "<u2"),
        "tiles": _packed(sheets.tiles, "<i4"),
        "tile_side": sheets.side,
        "tile_columns": COLUMNS,
        "sheets": list(sheets.sheets),
        "answers": answers,
        "answer": None if predicted is None else _packed([answer_at.get(said, -1) for said in predicted], "<i4"),
        "wrong": None if is_wrong is None else _packed(is_wrong, "<i1"),
    }


def _packed(numbers: Any, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, kind).tobytes()).decode()


def _folders(uris: Sequence[str]) -> tuple[list[str], list[int], list[str]]:
    """The folders of some URIs, the folder of each by its place in the first, and the names."""
    parts = [("".join(uri.rpartition("/")[:2]), uri.rpartition("/")[2]) for uri in uris]
    folders = list(dict.fromkeys(folder for folder, _ in parts))
    at = {folder: number for number, folder in enumerate(folders)}
    return folders, [at[folder] for folder, _ in parts], [name for _, name in parts]
