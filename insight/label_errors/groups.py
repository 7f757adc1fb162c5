"""Which photos show one thing: those with the same file content, and those that a file of groups names.

The file is a CSV table with a header and the columns `group` and `image_uri` or `image_sha256`, as `hugs twins` writes
it, or without a header of rows `photo,group`, as `hugs ingest --group_by FILE` reads it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from configs.errors import InputError
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.joined_groups import equal_files, joined_groups
from trainer.storage.files import cause_of, storage

_DIGEST_DIGITS = 32


def group_numbers(photos: EmbeddedPhotos, path: str | None = None) -> tuple[np.ndarray, int]:
    """The number of the group of each photo. Photos of one content are always of one group.

    Args:
      photos: n photos.
      path: of a file of groups, local or in a bucket; None for no file.

    Returns:
      int64, shape [n]; and how many photos the file put into a group.

    Raises:
      InputError: the file cannot be read, or is no such table, or names none of the photos.
    """
    equal = equal_files(photos.image_digests)
    if path is None:
        return equal, 0
    by_name = _groups_of_names(path)
    members: dict[str, int] = {}
    pairs = []
    for row, uri in enumerate(photos.uris.tolist()):
        group = by_name.get(photos.digest_of(row) or "") or by_name.get(uri) or by_name.get(uri.rpartition("/")[2])
        if group is not None:
            pairs.append((members.setdefault(group, row), row))
    if not pairs:
        raise InputError(
            f"--group_by: {path} names none of the {len(photos):,} photos of --data_paths. It must name them by "
            "image_sha256 or by image_uri as the records have it."
        )
    first, second = np.array(pairs, np.int64).T
    rows = np.arange(len(photos))
    return joined_groups(len(photos), np.concatenate([equal, first]), np.concatenate([rows, second])), len(pairs)


def _groups_of_names(path: str) -> dict[str, str]:
    """The group of each URI, and of the first 32 digits of each digest."""
    try:
        rows = list(csv.reader(io.StringIO(storage().read(path).decode("utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = cause_of(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"--group_by: cannot read {path} as a CSV file: {cause}.") from error
    names = [cell.strip().casefold() for cell in rows[0]] if rows else []
    has_header = "group" in names and bool({"image_uri", "image_sha256"} & set(names))
    columns = names if has_header else ["image_uri", "group"]
    found: dict[str, str] = {}
    for number, cells in enumerate(rows, start=1):
        if (has_header and number == 1) or not any(cell.strip() for cell in cells):
            continue
        if not has_header and len(cells) != 2:
            raise InputError(f"--group_by: {path}:{number}: a row must be photo,group. Received: {','.join(cells)!r}.")
        row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False)}
        if not row.get("group"):
            continue  # A photo of no group stands alone.
        for name in _names_of(row):
            if found.setdefault(name, row["group"]) != row["group"]:
                raise InputError(
                    f"--group_by: {path}:{number}: {name!r} is in two groups, {found[name]!r} and {row['group']!r}. "
                    "Keep one."
                )
    return found


def _names_of(row: dict[str, str]) -> Sequence[str]:
    digest = row.get("image_sha256", "").casefold().removeprefix("sha256:")[:_DIGEST_DIGITS]
    # Two photos may have one URI in two lists, so the URI counts only where no digest is known.
    return [digest] if digest else [row["image_uri"]] if row.get("image_uri") else []
