"""Reads and decodes images ahead of those who use them, in order, with bounded memory and bounded waits.

Two pools of threads, because the two wait for different things: many readers hide the latency of storage (50 ms an
object are hidden at 600 images a second by 32 of them), while decoding is work for the cores, and each image being
decoded may fill hundreds of megabytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from preprocess.cores import available_cores
from preprocess.daemon_threads import DaemonThreads, TimedThreads
from preprocess.image import ImageError
from preprocess.outcomes import RowFailure, Stage

READ_THREADS = 32
# Encoded images that wait for a decoder. Photos of 5 MB each: fifty of them.
MAX_ENCODED_BYTES = 256 * 1024 * 1024
DEFAULT_DEADLINE_SEC = 60.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An image and what it cost.

    Attributes:
      pixels: uint8 [height, width, 3].
      digest: the SHA-256 of the encoded bytes, 32 bytes.
      num_bytes: encoded bytes.
      read_sec: of reading, and of the digest and the look-up by it.
      decode_sec: of decoding.
    """

    pixels: np.ndarray
    digest: bytes
    num_bytes: int
    read_sec: float
    decode_sec: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KnownImage:
    """An image whose embedding was found by its digest, so that it was not decoded.

    Attributes:
      embedding: float32 [n].
      digest: the SHA-256 of the encoded bytes, 32 bytes.
      num_bytes: encoded bytes.
      read_sec: of reading, the digest and the look-up.
    """

    embedding: np.ndarray
    digest: bytes
    num_bytes: int
    read_sec: float


Outcome = LoadedImage | KnownImage | RowFailure


@functools.lru_cache(maxsize=1)
def _pools() -> tuple[TimedThreads, DaemonThreads]:
    """The threads of this process. A worker may run the stage in several threads; they share the machine."""
    return TimedThreads(READ_THREADS, "read"), DaemonThreads(available_cores(), "decode")


class ImageLoader:
    """Loads images in the order in which their locations were added.

    All calls from one thread. What it holds at most: the pixels of `max_ahead` images; `max_encoded_bytes` of encoded
    images that wait or are decoded, and beyond them one file for each of the READ_THREADS whose reads had begun; and
    for each core what decoding one image takes, in this process or in the decoder's child. For one of 100 megapixels
    that is 0.4 to 0.9 GB in most formats, and 2 GB as JPEG 2000 or CMYK TIFF.

    Args:
      read: location of an image to its bytes; raises RowFailure. Runs in threads.
      decode: bytes to pixels, uint8 [height, width, 3]; raises ImageError. Runs in threads, and is to end:
        `preprocess.isolated_decoder` does.
      max_ahead: images loaded ahead.
      max_encoded_bytes: no further read starts while the images that wait for a decoder hold as much.
      deadline_sec: an image that takes longer to read fails, and its thread is given up.
      find_embedding: digest (SHA-256, 32 bytes) to an embedding that is there already, float32 [n], or None. Runs
        in threads, within the deadline.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], bytes],
        decode: Callable[[bytes], np.ndarray],
        max_ahead: int,
        max_encoded_bytes: int = MAX_ENCODED_BYTES,
        deadline_sec: float = DEFAULT_DEADLINE_SEC,
        find_embedding: Callable[[bytes], np.ndarray | None] | None = None,
    ):
        self._reading = _Reading(read, find_embedding, deadline_sec)
        self._decode = decode
        self._max_ahead = max_ahead
        self._budget = _ByteBudget(max_encoded_bytes)
        self._locations: Iterator[str] = iter(())
        self._ahead: collections.deque[concurrent.futures.Future[Outcome]] = collections.deque()

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the encoded images that wait for a decoder or are being decoded."""
        return self._budget.held

    def add(self, locations: Iterable[str]) -> None:
        """Adds images at the end of the line."""
        self._locations = itertools.chain(self._locations, locations)
        self._load_ahead()

    def next(self) -> Outcome:
        """The next image, or why there is none. Waits for it.

        Raises:
          IndexError: no image is left.
          OSError: so many reads hang that storage is taken for dead.
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
            task = _LoadTask(location, self._reading, self._decode, self._budget)
            self._ahead.append(task.future)
            readers.submit(task)


class _ByteBudget:
    """Bytes that may be held, and waiting until fewer are."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._freed = threading.Condition()
        self.held = 0

    def wait(self) -> None:
        with self._freed:
            # Decoders never wait for anything, so the bytes go down.
            while self.held >= self._max_bytes:
                self._freed.wait()

    def take(self, num_bytes: int) -> None:
        with self._freed:
            self.held += num_bytes

    def free(self, num_bytes: int) -> None:
        with self._freed:
            self.held -= num_bytes
            self._freed.notify_all()


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """How images are read, the same for all of a loader."""

    read: Callable[[str], bytes]
    find_embedding: Callable[[bytes], np.ndarray | None] | None
    deadline_sec: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Encoded:
    data: bytes
    digest: bytes
    read_sec: float


class _LoadTask:
    """One image on its way, a `TimedTask`: its future gets the outcome."""

    def __init__(
        self,
        location: str,
        reading: _Reading,
        decode: Callable[[bytes], np.ndarray],
        budget: _ByteBudget,
    ):
        self.future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        self._location = location
        self._reading = reading
        self._decode = decode
        self._budget = budget
        self._read: _Encoded | KnownImage | RowFailure | None = None

    @property
    def deadline_sec(self) -> float:
        return self._reading.deadline_sec

    def prepare(self) -> None:
        self._budget.wait()

    def run(self) -> None:
        try:
            self._read = self._read_and_look_up()
        except RowFailure as failure:
            self._read = failure
        except BaseException as error:
            self._read = _unexpected("read", error)

    def _read_and_look_up(self) -> _Encoded | KnownImage:
        started = time.perf_counter()
        data = self._reading.read(self._location)
        digest = hashlib.sha256(data).digest()
        find = self._reading.find_embedding
        embedding = find(digest) if find else None
        read_sec = time.perf_counter() - started
        if embedding is not None:
            return KnownImage(embedding, digest, len(data), read_sec)
        return _Encoded(data, digest, read_sec)

    def finish(self) -> None:
        read, self._read = self._read, None
        assert read is not None
        if not isinstance(read, _Encoded):
            self.future.set_result(read)
            return
        self._budget.take(len(read.data))
        _, decoders = _pools()
        decoders.submit(functools.partial(self._decode_one, read))

    def give_up(self, error: OSError | None) -> None:
        if error is not None:
            self.future.set_exception(error)
            return
        message = f"{self._location}: reading took longer than {self.deadline_sec:g} s."
        self.future.set_result(RowFailure("read", "deadline", message))

    def _decode_one(self, encoded: _Encoded) -> None:
        started = time.perf_counter()
        outcome: Outcome
        try:
            pixels = self._decode(encoded.data)
            decode_sec = time.perf_counter() - started
            outcome = LoadedImage(pixels, encoded.digest, len(encoded.data), encoded.read_sec, decode_sec)
        except ImageError as error:
            outcome = RowFailure("decode", error.reason, error.message)
        except BaseException as error:
            outcome = _unexpected("decode", error)
        finally:
            self._budget.free(len(encoded.data))
        self.future.set_result(outcome)


def _unexpected(stage: Stage, error: BaseException) -> RowFailure:
    # A reader or decoder that fails in a way nobody foresaw costs its own row, not the job.
    return RowFailure(stage, "unexpected_error", f"{type(error).__name__}: {error}")
