"""Finds the photos of record sets that are most similar to a photo of a request, by the embedding that it has anyway.

The search belongs to a network: to each version of each model that has the network of the sets.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.errors import InputError
from insight.data.set_names import set_names
from insight.index.cells import search_on_one_core
from insight.index.near_photo import NearPhoto
from insight.index.photo_index import PhotoIndex, open_index
from preprocess.machine.cores import available_cores
from preprocess.storage.scratch import Scratch
from serving.decoding import WaitedTooLongError
from serving.metrics import Metrics
from serving.search.thumbnails import Thumbnails
from trainer.data.photos import finder_of_sets
from trainer.data.record_sets import RecordSet
from trainer.export.model_info import ModelInfo

_LOGGER = logging.getLogger("serving")


class PhotoSearch:
    """The search of a server. All calls are made in the thread of one loop; the work is done in others.

    Args:
      index: of the sets.
      sets: what is searched; all of one network.
      photo_dirs: the folders that photos may be read from, as in the options.
      max_wait_sec: a search that waits longer for its turn is given up.
      metrics: notes times and numbers.
      scratch: the temporary folder of the index, which lives as long as this object; None for a folder that stays.

    Attributes:
      records: how many photos are searched.
    """

    def __init__(
        self,
        index: PhotoIndex,
        sets: Sequence[RecordSet],
        *,
        photo_dirs: Sequence[str],
        max_wait_sec: float,
        metrics: Metrics,
        scratch: Scratch | None = None,
    ):
        self._scratch = scratch
        self.records = index.records
        self._index = index
        self._network = sets[0].manifest.backbone
        self._names = set_names(sets)
        self._max_wait_sec = max_wait_sec
        self._metrics = metrics
        self._threads = concurrent.futures.ThreadPoolExecutor(
            available_cores(), "search", initializer=search_on_one_core
        )
        self._thumbnails = Thumbnails(
            [finder_of_sets([found], photo_dirs, asks_dead_buckets=True) for found in sets], metrics
        )

    def fits(self, info: ModelInfo) -> bool:
        """Whether the embeddings of a model can be compared with those of the sets."""
        return info.backbone.agrees_with(self._network)

    async def nearest(self, embeddings: np.ndarray, count: int) -> list[list[NearPhoto]]:
        """The most similar photos, for each embedding.

        Args:
          embeddings: float32, shape [n, embedding_size], of a model that `fits`.
          count: how many for each.

        Raises:
          WaitedTooLongError: its turn did not come in time.
        """
        submitted = time.monotonic()

        def search() -> list[list[NearPhoto]]:
            started = time.monotonic()
            if started - submitted > self._max_wait_sec:
                raise WaitedTooLongError
            found = self._index.nearest(embeddings, count, shows_progress=False)
            self._metrics.search(len(found), time.monotonic() - started)
            return found

        return await asyncio.get_running_loop().run_in_executor(self._threads, search)

    def to_json(self, found: Sequence[NearPhoto], digest: str | None) -> list[dict[str, Any]]:
        """The photos found, as `hugs search --json` writes them, each with the address of its thumbnail.

        Args:
          found: by `nearest`.
          digest: the beginning of the SHA-256 of the file that was searched with, in hexadecimal; None if not known.
        """
        return [
            {
                **photo.to_json(self._names[photo.set_number]),
                "same_file": photo.digest is not None and digest is not None and digest.startswith(photo.digest),
                "photo": f"search/photos/{self._index.tag}/{photo.row}",
            }
            for photo in found
        ]

    async def thumbnail(self, tag: str, row: int) -> bytes | None:
        """A JPEG of the photo of a row; None if it cannot be read here, or the row is none of this index.

        Raises:
          RefusedError: too many are asked for at once.
        """
        if tag != self._index.tag or row >= self.records:
            return None
        return await self._thumbnails.get(self._index.photo(row))


def open_photo_search(
    sets: Sequence[RecordSet],
    *,
    folder: str | None,
    photo_dirs: Sequence[str],
    max_wait_sec: float,
    metrics: Metrics,
) -> PhotoSearch:
    """Opens the index of some sets, or makes it, which may take minutes.

    Args:
      sets: finished sets of one network and one dictionary.
      folder: of the index; None for a temporary one.
      photo_dirs: see `PhotoSearch`.
      max_wait_sec: see `PhotoSearch`.
      metrics: see `PhotoSearch`.

    Raises:
      InputError: a shard is damaged, or the folder cannot be written.
    """
    scratch = None
    if folder is None:
        try:
            scratch = Scratch()
        except OSError as error:
            raise InputError(
                f"--search: no temporary folder can be made for the index ({error.strerror}). Pass --search_index DIR."
            ) from error
        folder = scratch.path
    index, done = open_index(folder, sets, flag="search_index")
    _LOGGER.info("search: %s", index.describe(done, "a temporary folder" if scratch else folder))
    return PhotoSearch(index, sets, photo_dirs=photo_dirs, max_wait_sec=max_wait_sec, metrics=metrics, scratch=scratch)
