"""Reads and embeds the photos that somebody names, in place of a record set: for a sample that no program keeps."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from configs.activity import doing
from configs.counts import counted
from preprocess.engines.base import Engine
from preprocess.images.loader import LoadedImage
from trainer.data.photo_statistics import PHOTO_STATISTICS, photo_statistics
from trainer.photo_reader import PhotoReader

# As in the records.
_DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnreadPhoto:
    """A photo that could not be read: its location, and why."""

    location: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NamedPhotos:
    """Photos that were read and embedded.

    Attributes:
      rows: int64, shape [n]: their places among the photos that were named.
      digests: the first 16 bytes of the SHA-256 of their files, in hexadecimal.
      embeddings: float32, shape [n, embedding_size].
      statistics: float32, shape [p, 6]: of the first p photos, in the order of `PHOTO_STATISTICS`.
      unread: the photos that could not be read.
    """

    rows: np.ndarray
    digests: list[str]
    embeddings: np.ndarray
    statistics: np.ndarray
    unread: list[UnreadPhoto]


def read_and_embed(locations: Sequence[str], engine: Engine, *, size: int, max_statistics: int) -> NamedPhotos:
    """Reads, decodes and embeds photos as the pipeline does. A photo that cannot be read is no error.

    Args:
      locations: paths and URIs.
      engine: runs the network.
      size: of the square that the network gets, in pixels.
      max_statistics: how many photos get statistics, at most.

    Raises:
      InputError: the machine or its storage failed for many photos in a row.
    """
    unread: list[UnreadPhoto] = []
    rows: list[int] = []
    digests: list[str] = []
    statistics: list[np.ndarray] = []
    pending: list[concurrent.futures.Future[np.ndarray]] = []
    embeddings = np.empty((len(locations), engine.identity.embedding_size), np.float32)
    filled = 0

    def collect(until: int) -> None:
        nonlocal filled
        while len(pending) > until:
            result = pending.pop(0).result()
            embeddings[filled : filled + len(result)] = result
            filled += len(result)

    def is_unread(path: str, message: str) -> None:
        unread.append(UnreadPhoto(location=path, message=" ".join(message.split())))

    reader = PhotoReader(locations, size, is_unread)
    batch: list[np.ndarray] = []
    with doing(f"reading and embedding {counted(len(locations), 'photo')}", total=len(locations), unit="photo") as done:
        while reader.num_left:
            images: list[tuple[str, LoadedImage]] = reader.next_images(engine.batch_size - len(batch))
            for _, image in images:
                rows.append(len(rows) + len(unread))  # Photos and faults come in the order in which they were named.
                digests.append(image.digest[:_DIGEST_BYTES].hex())
                batch.append(image.pixels)
                if len(statistics) < max_statistics:
                    statistics.append(photo_statistics(image.pixels))
            reader.report_held()
            if len(batch) == engine.batch_size or (batch and not reader.num_left):
                pending.append(engine.start(np.stack(batch)))
                batch = []
                collect(until=1)
            done.done = len(locations) - reader.num_left
        collect(until=0)
    return NamedPhotos(
        rows=np.array(rows, np.int64),
        digests=digests,
        embeddings=embeddings[:filled],
        statistics=np.array(statistics, np.float32).reshape(-1, len(PHOTO_STATISTICS)),
        unread=unread,
    )
