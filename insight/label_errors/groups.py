"""Which photos show one thing: those with the same file content, and those that a file of groups names.

The file is twins.csv, as `hugs twins` writes it, or has rows `photo,group`, as `hugs ingest --group_by FILE` reads it.
"""

from __future__ import annotations

import numpy as np

from configs.errors import InputError
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.joined_groups import equal_files, joined_groups
from preprocess.records.twin_groups import TwinGroups, parse_groups
from trainer.storage.files import cause_of, storage


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
    groups = _read(path)
    if not len(groups):
        return equal, 0  # No photo has a copy.
    members: dict[str, int] = {}
    pairs = []
    for row, uri in enumerate(photos.uris.tolist()):
        group = (
            groups.by_digest.get(photos.image_digests[row].tobytes())
            or groups.by_uri.get(uri)
            or groups.by_uri.get(uri.rpartition("/")[2])
        )
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


def _read(path: str) -> TwinGroups:
    try:
        data = storage().read(path)
    except OSError as error:
        raise InputError(f"--group_by: cannot read {path} ({cause_of(error)}).") from error
    return parse_groups(data, path=path, flag="group_by")
