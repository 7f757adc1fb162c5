"""map.csv: where each photo is on a map. A later map goes on from it, and other programs find photos by it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from configs.csv_text import LABEL_SEPARATOR, csv_text
from configs.errors import InputError
from configs.written_tables import MAP_COLUMNS
from insight.data.embedded_photos import EmbeddedPhotos
from trainer.storage.files import cause_of, storage


def table_text(photos: EmbeddedPhotos, positions: np.ndarray, *, set_names: Sequence[str]) -> str:
    """The table as text: a line for each photo, in the order of the photos.

    Args:
      photos: of the map.
      positions: float32, shape [n, 2].
      set_names: a name for each set.
    """
    return csv_text(
        MAP_COLUMNS,
        (
            [
                photos.uris[row],
                photos.digest_of(row) or "",
                LABEL_SEPARATOR.join(photos.labels_of(row)),
                set_names[photos.set_numbers[row]],
                f"{x:.6g}",
                f"{y:.6g}",
            ]
            for row, (x, y) in enumerate(positions.tolist())
        ),
    )


def earlier_positions(path: str, photos: EmbeddedPhotos, *, flag: str = "previous") -> np.ndarray:
    """The positions of photos on an earlier map. A photo is known by the content of its file, or else by its URI.

    Args:
      path: of the map.csv of the earlier map; local or gs://.
      photos: n photos.
      flag: the option that named it, for the messages.

    Returns:
      float32, shape [n, 2]; NaN for photos that the earlier map does not have.

    Raises:
      InputError: it cannot be read, is no such table, or has none of the photos.
    """
    try:
        text = storage().read(path).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"--{flag}: cannot read {path}: {cause_of(error)}.") from error
    by_digest: dict[str, tuple[float, float]] = {}
    by_uri: dict[str, tuple[float, float]] = {}
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if rows.fieldnames is None or not {"image_uri", "image_sha256", "x", "y"} <= set(rows.fieldnames):
        raise InputError(
            f"--{flag}: {path} is no map.csv of an earlier map: the columns image_uri, x and y are missing."
        )
    try:
        for row in rows:
            place = (float(row["x"]), float(row["y"]))
            if not np.isfinite(place).all():
                raise ValueError("not finite")
            by_uri.setdefault(row["image_uri"], place)
            if row["image_sha256"]:
                by_digest.setdefault(row["image_sha256"], place)
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"--{flag}: {path}, line {rows.line_num}: x and y must be numbers. Pass the map.csv as it was written."
        ) from error
    found = np.full((len(photos), 2), np.nan, np.float32)
    for number in range(len(photos)):
        digest = photos.digest_of(number)
        known = by_digest.get(digest) if digest else None
        known = known or by_uri.get(photos.uris[number])
        if known is not None:
            found[number] = known
    if np.isnan(found[:, 0]).all():
        raise InputError(f"--{flag}: {path} has none of the photos of --data_paths. Is it the map of other photos?")
    return found
