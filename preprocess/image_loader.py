"""Reads and decodes images ahead of those who use them, in order, with bounded memory.

Two pools of threads, because the two wait for different things: many readers hide the latency of storage (50 ms an
object are hidden at 600 images a second by 32 of them), while decoding is work for the cores, and each image being
decoded may fill tens of megabytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from preprocess.cores import available_cores
from preprocess.image import ImageError
from preprocess.outcomes import RowFailure

READ_THREADS = 32
# Encoded images that wait for a decoder. Photos of 5 MB each: fifty of them.
MAX_ENCODED_BYTES = 256 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An image and what it cost: uint8 [height, width, 3], seconds of reading and of decoding."""

    pixels: np.ndarray
    read_sec: float
    decode_sec: float


@functools.lru_cache(maxsize=1)
def _pools() -> tuple[concurrent.futures.ThreadPoolExecutor, concurrent.futures.ThreadPoolExecutor]:
    """The threads of this process. A worker may run the stage in several threads; they share the machine."""
    return (
        concurrent.futures.ThreadPoolExecutor(READ_THREADS, "read"),
        concurrent.futures.ThreadPoolExecutor(available_cores(), "decode"),
    )


class ImageLoader:
    """Loads images in the order in which their locations were added.

    All calls from one thread.

    Args:
      read: location of an image to its bytes; raises RowFailure. Runs in threads.
      decode: bytes to pixels, uint8 [height, width, 3]; raises ImageError. Runs in threads.
      max_ahead: images loaded ahead.
      max_encoded_bytes: no further read starts while the images that wait for a decoder hold as much.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], bytes],
        decode: Callable[[bytes], np.ndarray],
        max_ahead: int,
        max_encoded_bytes: int = MAX_ENCODED_BYTES,
    ):
        self._read = read
        self._decode = decode
        self._max_ahead = max_ahead
        self._max_encoded_bytes = max_encoded_bytes
        self._encoded_bytes = 0
        self._bytes_freed = threading.Condition()
        self._locations: Iterator[str] = iter(())
        self._ahead: collections.deque[concurrent.futures.Future[LoadedImage | RowFailure]] = collections.deque()

    def add(self, locations: Iterable[str]) -> None:
        """Adds images at the end of the line."""
        self._locations = itertools.chain(self._locations, locations)
        self._load_ahead()

    def next(self) -> LoadedImage | RowFailure:
        """The next image, or why there is none. Waits for it.

        Raises:
          IndexError: no image is left.
        """
        result = self._ahead.popleft().result()
        self._load_ahead()
        return result

    def _load_ahead(self) -> None:
        readers, _ = _pools()
        while len(self._ahead) < self._max_ahead:
            location = next(self._locations, None)
            if location is None:
                return
            future: concurrent.futures.Future[LoadedImage | RowFailure] = concurrent.futures.Future()
            self._ahead.append(future)
            readers.submit(self._read_one, location, future)

    def _read_one(self, location: str, future: concurrent.futures.Future[LoadedImage | RowFailure]) -> None:
        with self._bytes_freed:
            # Decoders never wait for anything, so the bytes go down.
            while self._encoded_bytes >= self._max_encoded_bytes:
                self._bytes_freed.wait()
        started = time.perf_counter()
        try:
            data = self._read(location)
        except RowFailure as failure:
            future.set_result(failure)
        except BaseException as error:
            future.set_result(_unexpected("read", error))
        else:
            with self._bytes_freed:
                self._encoded_bytes += len(data)
            _, decoders = _pools()
            decoders.submit(self._decode_one, data, time.perf_counter() - started, future)

    def _decode_one(
        self, data: bytes, read_sec: float, future: concurrent.futures.Future[LoadedImage | RowFailure]
    ) -> None:
        started = time.perf_counter()
        outcome: LoadedImage | RowFailure
        try:
            outcome = LoadedImage(self._decode(data), read_sec, time.perf_counter() - started)
        except ImageError as error:
            outcome = RowFailure("decode", error.reason, error.message)
        except BaseException as error:
            outcome = _unexpected("decode", error)
        finally:
            with self._bytes_freed:
                self._encoded_bytes -= len(data)
                self._bytes_freed.notify_all()
        future.set_result(outcome)


def _unexpected(stage: str, error: BaseException) -> RowFailure:
    # A reader or decoder that fails in a way nobody foresaw costs its own row, not the job.
    return RowFailure(stage, "unexpected_error", f"{type(error).__name__}: {error}")  # type: ignore[arg-type]
