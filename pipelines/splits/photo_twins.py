"""Photos that are copies of each other by their content, as twins.csv says, get one key, so that they are in one list.

A photo is found by the digest of its file, so it may have been renamed or moved since its record was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from configs.activity import doing
from configs.errors import InputError
from preprocess.records.twin_groups import TwinGroups
from preprocess.storage.in_order import map_in_order

_DIGEST_BYTES = 16
# Reading waits for the disk or for a bucket.
_READERS = 16


def twin_keys(
    photos: Iterable[tuple[str, str]], groups: TwinGroups, read: Callable[[str], bytes], *, total: int
) -> tuple[dict[str, str], int]:
    """The keys of photos that change, so that all photos of a group have one key.

    Photos that had one key before, such as the versions of one photo, still have one.

    Args:
      photos: for each photo its path and the key that it has by its name.
      groups: which photos are copies of each other.
      read: reads a photo.
      total: how many photos there are.

    Returns:
      The new key by the old one, where they differ: the smallest of the keys that were joined. And how many photos the
      table names.

    Raises:
      InputError: a photo cannot be read.
    """

    def group_of(photo: tuple[str, str]) -> tuple[str, str | None]:
        path, key = photo
        try:
            digest = hashlib.sha256(read(path)).digest()[:_DIGEST_BYTES]
        except OSError as error:
            raise InputError(f"--image_dir: cannot read {path} ({error.strerror or error}).") from error
        return key, groups.by_digest.get(digest)

    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parents.get(key, key)) != key:
            key = above
        return key

    first_of_group: dict[str, str] = {}
    named = 0
    with doing("comparing the photos with those of twins.csv", total=total, unit="photo") as comparing:
        for key, group in map_in_order(group_of, photos, at_once=_READERS):
            comparing.advance(1)
            if group is None:
                continue
            named += 1
            low, high = sorted((root(key), root(first_of_group.setdefault(group, key))))
            if low != high:
                parents[high] = low
    return {key: root(key) for key in parents}, named
