"""Reports the images that a set holds twice, holds under different labels, or shares with another set.

The URIs of these images are written to a file. Two images are the same if their files are equal byte for byte. Digests
and URIs lie on the local disk while they are compared, so sets of any size take little memory.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from configs.json_text import json_line
from preprocess.jobs.block_results import CONTENT_DTYPE
from preprocess.jobs.set_files import read_block_results
from preprocess.records.digest_table import DigestTable
from preprocess.records.example import decode_example
from preprocess.records.tfrecord import whole_records
from preprocess.storage.base import Storage, read_file
from preprocess.storage.in_order import map_in_order

DUPLICATES_NAME = "duplicates.jsonl"
SHARED_NAME = "shared_images.jsonl"
# A shard of 1024 records has 8.5 MB.
_SHARDS_AT_ONCE = 8
_MEMORY_BYTES = 8 * 1024 * 1024


class _Image(NamedTuple):
    """The fields of a record that the report needs. The embedding would take a hundred times the memory."""

    uri: str
    sha256: bytes


class ShardFile(NamedTuple):
    """A shard of the set: the paths at which it may be found, in the order of its moves, and its number of records."""

    paths: tuple[str, ...]
    records: int


def digest_table(contents: Iterable[np.ndarray], *, folder: str | None) -> DigestTable:
    """A table of the digests of records: `CONTENT_DTYPE`, shape [records of a block] for each block, in order."""
    table = DigestTable(folder=folder)
    for content in contents:
        table.add(np.ascontiguousarray(content["image"]).view(np.uint8).reshape(-1, 16), content["labels"])
    return table


def _read_shard(shard: ShardFile, storage: Storage) -> bytes:
    """Reads the bytes of a shard, uncompressed, from the first of its paths that exists."""
    for path in shard.paths:
        try:
            data = read_file(storage, path)
        except FileNotFoundError:
            continue  # Another attempt at the last step has moved it.
        return gzip.decompress(data) if path.endswith(".gz") else data
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shard.paths[0])


class ImagesOfSet:
    """The images of a set's records: their digests, and the records themselves in the shards.

    Args:
      digests: of the records, in order.
      shards: of the set, in order.
      storage: where the shards and the files of the report lie.
      folder: for temporary files; None for the folder of the system.
    """

    def __init__(self, digests: DigestTable, shards: Sequence[ShardFile], *, storage: Storage, folder: str | None):
        self.digests = digests
        self.storage = storage
        self.folder = folder
        self._shards = shards

    def find(self, wanted: np.ndarray) -> _FoundImages:
        """Finds the images at some positions, bool [records]. Each shard that is needed is read once."""
        ends = np.cumsum([shard.records for shard in self._shards])
        of_shards = [
            (shard, positions)
            for shard, end in zip(self._shards, ends.tolist(), strict=True)
            if len(positions := np.flatnonzero(wanted[end - shard.records : end]))
        ]
        images = map_in_order(lambda work: self._images_in(*work), of_shards, at_once=_SHARDS_AT_ONCE)
        return _FoundImages(np.flatnonzero(wanted), itertools.chain.from_iterable(images), folder=self.folder)

    def _images_in(self, shard: ShardFile, positions: np.ndarray) -> list[_Image]:
        """The images at some positions of a shard."""
        wanted = set(positions.tolist())
        found = []
        number = -1
        for number, record in enumerate(whole_records(_read_shard(shard, self.storage))):
            if number in wanted:
                example = decode_example(record)
                found.append(_Image(example.image_uri, example.image_sha256))
        if number + 1 != shard.records:
            raise OSError(f"{shard.paths[0]} has {number + 1} whole records, {shard.records} were written")
        return found


class _FoundImages:
    """Images by their positions in a set, in a temporary file.

    Args:
      positions: ascending, int64 [n].
      images: in the order of the positions.
      folder: for the file; None for the folder of the system.
    """

    def __init__(self, positions: np.ndarray, images: Iterable[_Image], *, folder: str | None):
        self._positions = positions
        self._ends = np.zeros(len(positions) + 1, np.int64)
        self._file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=folder))  # noqa: SIM115 (closed with its owner)
        end = 0
        for number, image in enumerate(images, start=1):
            # A record whose image was not read has an empty digest.
            uri = image.uri.encode("utf-8", "surrogatepass")
            end += self._file.write(b"".join((bytes([len(image.sha256)]), image.sha256, uri)))
            self._ends[number] = end

    def at(self, positions: np.ndarray) -> Iterator[_Image]:
        """The images at some of the positions, int64 [m], in this order."""
        numbers = np.searchsorted(self._positions, positions)
        for start, end in zip(self._ends[numbers].tolist(), self._ends[numbers + 1].tolist(), strict=True):
            self._file.seek(start)
            data = self._file.read(end - start)
            uri_at = 1 + data[0]
            yield _Image(data[uri_at:].decode("utf-8", "surrogatepass"), data[1:uri_at])

    def close(self) -> None:
        """Deletes the temporary file."""
        self._file.close()


def report_duplicates(images: ImagesOfSet, *, path: str, called: str) -> dict[str, Any]:
    """Finds images that several records of a set have, and writes their URIs to a file.

    Args:
      images: of the set.
      path: the path of the file, which is not written if nothing was found.
      called: the path of the file that the report names.

    Returns:
      Counts for the report.

    Raises:
      OSError: storage failed.
    """
    groups = images.digests.find_duplicates()
    if not groups.num_groups:
        images.storage.delete_file(path)
    else:
        wanted = np.zeros(images.digests.records, bool)
        for some in groups.in_order():
            wanted[some.members] = True
        with contextlib.closing(images.find(wanted)) as found, images.storage.create(path) as stream:
            for some in groups.in_order():
                for number, labels_differ in enumerate(some.labels_differ.tolist()):
                    members = list(found.at(some.group(number)))
                    entry = {
                        "image_sha256": members[0].sha256.hex(),
                        "same_labels": not labels_differ,
                        "uris": [member.uri for member in members],
                    }
                    stream.write(json_line(entry))
    return {
        "images": groups.num_groups,
        "extra_records": groups.num_extra,
        "images_with_different_labels": groups.num_conflicting,
        "file": called if groups.num_groups else None,
    }


def report_shared(images: ImagesOfSet, *, path: str, called: str, others: Sequence[str]) -> list[dict[str, Any]]:
    """Finds images of a set that other sets hold too, and writes their URIs to a file.

    Args:
      images: of the set.
      path: the path of the file, which is not written if nothing was found.
      called: the path of the file that the report names.
      others: prefixes of the other sets, which are finished.

    Returns:
      Counts for the report, one entry for each other set.

    Raises:
      OSError: storage failed.
      InputError: the results of another set's blocks cannot be read.
    """
    shared = {other: _shared_with(other, images) for other in others}
    counts = {other: int(np.count_nonzero(is_shared)) for other, is_shared in shared.items()}
    if not any(counts.values()):
        images.storage.delete_file(path)
    else:
        wanted = np.logical_or.reduce(list(shared.values()))
        with contextlib.closing(images.find(wanted)) as found, images.storage.create(path) as stream:
            for other, is_shared in shared.items():
                for image in found.at(np.flatnonzero(is_shared)):
                    stream.write(json_line({"uri": image.uri, "also_in": other}))
    return [{"prefix": other, "records": count, "file": called if count else None} for other, count in counts.items()]


def _shared_with(other: str, images: ImagesOfSet) -> np.ndarray:
    """Which records have an image that is also in another set: bool [records]."""
    contents = (np.frombuffer(result.content, CONTENT_DTYPE) for result in read_block_results(other, images.storage))
    with digest_table(contents, folder=images.folder) as digests:
        return images.digests.find_shared(digests)
