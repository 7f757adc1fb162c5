"""Small pictures of the photos of record sets, made when they are asked for, and kept up to a number of bytes.

A request names a photo by its row, never by a path. What is opened is what the record of that row names, and it is
shown only if it is still the file of the record, by its digest where the record has one. Web addresses are not opened:
a request must not make the server ask another host.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence

from insight.index.near_photo import NearPhoto
from preprocess.images.decode import ImageError
from preprocess.machine.cores import available_cores
from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.timed_threads import TimedThreads
from serving.metrics import Metrics
from serving.refusals import busy
from trainer.data.photos import PhotoFinder, decode_photo, encode_jpeg

_LOGGER = logging.getLogger("serving")

# The width in pixels: twice what the page shows in a list, for screens with small pixels.
SIDE = 256
_KEPT_BYTES = 64 * 1024 * 1024  # about 5,000 thumbnails
# Photos that are read, or wait for it. A browser asks for six at a time.
_MOST_AT_ONCE = 64
# Reading and decoding one photo, with the retries of both. A file system that hangs must not hold up the others.
_DEADLINE_SEC = 45.0
# How long a photo that cannot be read is not looked for again, and how many of them are remembered.
_MISSING_SEC = 30.0
_MOST_MISSING = 10_000


@functools.cache
def _threads() -> TimedThreads:
    """The threads of this process that make thumbnails. They are others than those that decode photos of requests."""
    return TimedThreads(max(2, available_cores()), "thumbnails")


class Thumbnails:
    """Makes and keeps thumbnails. All calls are made in the thread of one loop.

    Args:
      finders: what finds the photos of each set.
      metrics: notes the times.
      kept_bytes: how many bytes of thumbnails are kept.
    """

    def __init__(self, finders: Sequence[PhotoFinder], metrics: Metrics, *, kept_bytes: int = _KEPT_BYTES):
        self._finders = finders
        self._metrics = metrics
        self._room = kept_bytes
        self._kept: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._missing: dict[int, float] = {}
        self._made: dict[int, asyncio.Future[bytes | None]] = {}

    async def get(self, photo: NearPhoto) -> bytes | None:
        """A JPEG of a photo, `SIDE` pixels wide: the square that the network saw. None if it cannot be read here.

        Raises:
          RefusedError: too many are asked for at once.
        """
        row = photo.row
        if (kept := self._kept.get(row)) is not None:
            self._kept.move_to_end(row)
            return kept
        if self._missing.get(row, 0.0) > time.monotonic():
            return None
        made = self._made.get(row)
        if made is None:
            if len(self._made) >= _MOST_AT_ONCE:
                raise busy(1)
            made = self._made[row] = self._start(photo)
        # The others who wait for it are not given up with this request.
        return await asyncio.shield(made)

    def _start(self, photo: NearPhoto) -> asyncio.Future[bytes | None]:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[bytes | None] = loop.create_future()
        finder = self._finders[photo.set_number]
        started = time.monotonic()

        def settle(picture: bytes | None) -> None:
            self._metrics.stage("thumbnail", time.monotonic() - started)
            del self._made[photo.row]
            self._keep(photo.row, picture)
            if not made.done():
                made.set_result(picture)

        def settle_soon(picture: bytes | None) -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: the server has ended.
                loop.call_soon_threadsafe(settle, picture)

        _threads().submit(_Task(finder, photo, settle_soon))
        return made

    def _keep(self, row: int, picture: bytes | None) -> None:
        if picture is None:
            if len(self._missing) >= _MOST_MISSING:
                self._missing.clear()
            self._missing[row] = time.monotonic() + _MISSING_SEC
            return
        self._missing.pop(row, None)
        self._kept[row] = picture
        self._room -= len(picture)
        while self._room < 0:
            self._room += len(self._kept.popitem(last=False)[1])


class _Task:
    """Reads and decodes one photo; see `TimedTask`."""

    deadline_sec = _DEADLINE_SEC

    def __init__(self, finder: PhotoFinder, photo: NearPhoto, settle: Callable[[bytes | None], None]):
        self._finder = finder
        self._photo = photo
        self._settle = settle
        self._picture: bytes | None = None

    def prepare(self) -> None:
        """There is nothing to wait for."""

    def run(self) -> None:
        """Makes the picture. A photo that is no image any more has none."""
        try:
            found = self._finder.read(self._photo.uri, self._photo.digest)
            if found is not None:
                self._picture = encode_jpeg(decode_photo(found[1], size=SIDE), side=SIDE)
        except (ImageError, MachineFault, OSError, MemoryError):
            pass  # What is wrong with the machine may be over when the photo is asked for again.
        except Exception:  # Or else this thread would end.
            _LOGGER.exception("a thumbnail failed through a bug of the server")

    def finish(self) -> None:
        """Gives the picture."""
        self._settle(self._picture)

    def give_up(self, error: OSError | None) -> None:
        """Its file hangs."""
        self._settle(None)
