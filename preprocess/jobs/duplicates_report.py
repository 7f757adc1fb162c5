"""Reports the images that a set holds twice, holds under different labels, or shares with another set.

The URIs of these images are written to a file. Two images are the same if their files are equal byte for byte.
"""

from __future__ import annotations

import bisect
import errno
import gzip
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from configs.json_text import json_line
from preprocess.jobs.set_files import read_content
from preprocess.records.duplicates import find_duplicates, find_shared
from preprocess.records.example import decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.storage.base import Storage, read_file

DUPLICATES_NAME = "duplicates.jsonl"
SHARED_NAME = "shared_images.jsonl"


def _digests(content: np.ndarray) -> np.ndarray:
    """uint8 [n, 16] of `CONTENT_DTYPE` [n]."""
    return np.ascontiguousarray(content["image"]).view(np.uint8).reshape(-1, 16)


class _Image(NamedTuple):
    """The fields of a record that the report needs. The embedding would take a hundred times the memory."""

    uri: str
    sha256: bytes


class ShardFile(NamedTuple):
    """A shard of the set: the paths at which it may be found, in the order of its moves, and its number of records."""

    paths: tuple[str, ...]
    records: int


def _read_shard(shard: ShardFile, storage: Storage) -> bytes:
    """Reads the bytes of a shard, uncompressed, from the first of its paths that exists."""
    for path in shard.paths:
        try:
            data = read_file(storage, path)
        except FileNotFoundError:
            continue  # Another attempt at the last step has moved it.
        return gzip.decompress(data) if path.endswith(".gz") else data
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shard.paths[0])


class _RecordsOfSet:
    """Finds records by their position in a set. Each shard that is needed is read once."""

    def __init__(self, shards: Sequence[ShardFile], *, storage: Storage):
        self._shards = shards
        self._storage = storage
        self._ends = list(itertools.accumulate(shard.records for shard in shards))

    def images_at(self, positions: Iterable[int]) -> dict[int, _Image]:
        wanted: dict[int, list[int]] = {}
        for position in positions:
            wanted.setdefault(bisect.bisect_right(self._ends, position), []).append(position)
        found = {}
        for number, members in sorted(wanted.items()):
            shard = self._shards[number]
            records = list(whole_records(_read_shard(shard, self._storage)))
            if len(records) != shard.records:
                raise OSError(f"{shard.paths[0]} has {len(records)} whole records, {shard.records} were written")
            first = self._ends[number] - shard.records
            for position in members:
                example = decode_example(records[position - first])
                found[position] = _Image(example.image_uri, example.image_sha256)
        return found


def report_duplicates(
    content: np.ndarray, shards: Sequence[ShardFile], *, path: str, called: str, storage: Storage
) -> dict[str, Any]:
    """Finds images that several records of a set have, and writes their URIs to a file.

    Args:
      content: the digests of the records in order: `CONTENT_DTYPE`, shape [records].
      shards: of the set, in order.
      path: the path of the file, which is not written if nothing was found.
      called: the path of the file that the report names.
      storage: where the shards and the file lie.

    Returns:
      Counts for the report.

    Raises:
      OSError: storage failed.
    """
    duplicates = find_duplicates(_digests(content), content["labels"])
    if not duplicates.num_groups:
        storage.delete_file(path)
    else:
        images = _RecordsOfSet(shards, storage=storage).images_at(duplicates.members.tolist())
        with storage.create(path) as stream:
            for start, end in itertools.pairwise(duplicates.splits.tolist()):
                members = duplicates.members[start:end]
                entry = {
                    "image_sha256": images[int(members[0])].sha256.hex(),
                    "same_labels": bool((content["labels"][members] == content["labels"][members[0]]).all()),
                    "uris": [images[int(member)].uri for member in members],
                }
                stream.write(json_line(entry))
    return {
        "images": duplicates.num_groups,
        "extra_records": duplicates.num_extra,
        "images_with_different_labels": duplicates.num_conflicting,
        "file": called if duplicates.num_groups else None,
    }


def report_shared(
    content: np.ndarray,
    shards: Sequence[ShardFile],
    *,
    path: str,
    called: str,
    others: Sequence[str],
    storage: Storage,
) -> list[dict[str, Any]]:
    """Finds images of a set that other sets hold too, and writes their URIs to a file.

    Args:
      content: the digests of the records in order: `CONTENT_DTYPE`, shape [records].
      shards: of the set, in order.
      path: the path of the file, which is not written if nothing was found.
      called: the path of the file that the report names.
      others: prefixes of the other sets, which are finished.
      storage: where the sets and the file lie.

    Returns:
      Counts for the report, one entry for each other set.

    Raises:
      OSError: storage failed.
      InputError: the results of another set's blocks cannot be read.
    """
    digests = _digests(content)
    shared = {other: find_shared(digests, _digests(read_content(other, storage))).tolist() for other in others}
    if not any(shared.values()):
        storage.delete_file(path)
    else:
        everyone = sorted({position for positions in shared.values() for position in positions})
        images = _RecordsOfSet(shards, storage=storage).images_at(everyone)
        with storage.create(path) as stream:
            for other, positions in shared.items():
                for position in positions:
                    entry = {"uri": images[position].uri, "also_in": other}
                    stream.write(json_line(entry))
    return [
        {"prefix": other, "records": len(positions), "file": called if positions else None}
        for other, positions in shared.items()
    ]
