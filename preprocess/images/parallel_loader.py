"""Loads images in several processes, for engines that are faster than one Python process can load.

The threads of an `ImageLoader` take turns at the interpreter's lock some twenty times for each image. On many cores the
lock is then mostly on its way from one thread to the next: one process loaded 2,400 photos a second where 16 cores can
decode 4,900, and half of the cores were idle. So here each of some helper processes (`images.load_worker`) runs an
`ImageLoader` of its own for a few cores. It gets the locations of a few images at a time, and leaves their pixels in
memory that both processes share. The decoders stay confined children, now of the helpers.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import heapq
import itertools
import math
import mmap
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from preprocess.images.load_worker import Placed, Request, Settings, read_message, write_message
from preprocess.images.loader import ImageLoader, Outcome
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.cores import available_cores
from preprocess.machine.deadlines import start_thread
from preprocess.machine.import_path import import_path
from preprocess.machine.machine_faults import MachineFault, in_one_line
from preprocess.storage.uris import has_scheme

# Measured on 16 cores, which decode 4,600 to 5,600 photos a second with nothing else to do: 4,900 with two cores a
# process, 3,900 to 4,100 with four. One process for each core takes more memory, and made 4,200.
_CORES_A_PROCESS = 2
# More than the cores of a process, so that the cores have work while pixels are handed on.
_DECODERS_A_PROCESS = 4
# Local files are read in a fraction of the time that decoding takes.
_READERS_A_PROCESS = 4
# Fewer cores decode about what one process can load.
_MIN_CORES = 8
# Pictures that are asked for together: images times their views. Fewer cost more messages, more keep more images
# waiting for the slowest.
_CHUNK = 32
# Chunks that a process has at once: one that it works on, one that waits.
_IN_FLIGHT = 2
# Room for a chunk each, of memory that is taken only when it is used. More than are in use but for huge batches.
_SLOTS = 128

_Results = list[Outcome | BaseException]


def is_worthwhile() -> bool:
    """Whether this machine has so many cores that one process cannot load what they decode."""
    return sys.platform == "linux" and available_cores() >= _MIN_CORES


class _Slots:
    """Memory that a helper process shares, divided into slots of one chunk each."""

    def __init__(self, bytes_of_chunk: int):
        self.bytes_of_chunk = bytes_of_chunk
        self.descriptor = os.memfd_create("images")
        os.ftruncate(self.descriptor, _SLOTS * bytes_of_chunk)
        self._memory = mmap.mmap(self.descriptor, _SLOTS * bytes_of_chunk)
        self._lock = threading.Lock()
        # The lowest first, so that little of the memory is ever touched.
        self._free = list(range(_SLOTS))

    def take(self) -> int | None:
        """A free slot; None if there is none."""
        with self._lock:
            return heapq.heappop(self._free) if self._free else None

    def free(self, slot: int) -> None:
        """Gives a slot back."""
        with self._lock:
            heapq.heappush(self._free, slot)

    def array(self, slot: int) -> np.ndarray:
        """The bytes of a slot, uint8 [bytes_of_chunk]. The slot is free when this array and its views are gone."""
        content = np.frombuffer(self._memory, np.uint8, self.bytes_of_chunk, slot * self.bytes_of_chunk)
        # NumPy's views name this array as the owner of the memory, since it is not an array that it views.
        weakref.finalize(content, self.free, slot)
        return content


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunk:
    slot: int
    request: Request
    future: concurrent.futures.Future[_Results]


class _Helper:
    """A helper process and the thread that talks to it."""

    def __init__(self, settings: Settings, chunk: int, image_bytes: int):
        self._settings = settings
        self._image_bytes = image_bytes
        self._slots = _Slots(chunk * image_bytes)
        self._chunks: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        if not start_thread(self._serve, "load-helper"):
            raise MachineFault("no thread can be started (a limit on processes?)")

    def submit(self, locations: list[str]) -> concurrent.futures.Future[_Results] | None:
        """Starts to load images; the future gets their outcomes in order. None if somebody has all its memory."""
        slot = self._slots.take()
        if slot is None:
            return None
        request = Request(slot * self._slots.bytes_of_chunk, self._image_bytes, tuple(locations))
        chunk = _Chunk(slot, request, concurrent.futures.Future())
        self._chunks.put(chunk)
        return chunk.future

    def _serve(self) -> None:
        pending: collections.deque[_Chunk] = collections.deque()
        tries = 0
        while True:
            if not pending:
                pending.append(self._chunks.get())
            process: subprocess.Popen[bytes] | None = None
            try:
                process = self._start()
                # The first, or those of a process that ended.
                for request in [chunk.request for chunk in pending]:
                    write_message(process.stdin, request)
                while True:
                    self._answer_one(process, pending)
                    tries = 0
            except Exception as error:
                tries += 1
                if tries > 1:
                    fault = MachineFault(f"a process that loads images ended: {in_one_line(error)}")
                    while pending:
                        pending.popleft().future.set_exception(fault)
            finally:
                if process is not None:
                    process.kill()
                    process.wait()

    def _answer_one(self, process: subprocess.Popen[bytes], pending: collections.deque[_Chunk]) -> None:
        while len(pending) < _IN_FLIGHT and (not pending or not self._chunks.empty()):
            pending.append(self._chunks.get())
            write_message(process.stdin, pending[-1].request)
        outcomes = read_message(process.stdout)
        # Nothing of this may outlive the call: a slot is free when nobody has its images.
        chunk = pending.popleft()
        chunk.future.set_result(self._with_pixels(chunk.slot, outcomes))

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "preprocess.images.load_worker", str(self._slots.descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": import_path()},
            pass_fds=[self._slots.descriptor],
        )
        write_message(process.stdin, self._settings)
        return process

    def _with_pixels(self, slot: int, outcomes: list[Outcome | BaseException | Placed]) -> _Results:
        content = self._slots.array(slot)
        found: _Results = []
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, Placed):
                start = position * self._image_bytes
                pixels = content[start : start + math.prod(outcome.shape)].reshape(outcome.shape)
                found.append(dataclasses.replace(outcome.image, pixels=pixels))
            else:
                found.append(outcome)
        return found


@functools.lru_cache(maxsize=1)
def _helpers(
    decode: Callable[..., np.ndarray], views: int, max_bytes: int, deadline_sec: float, image_bytes: int, pid: int
) -> list[_Helper]:
    """The helpers of this process, which all its loaders share."""
    settings = Settings(
        decode=decode,
        decodes_views=views > 1,
        max_bytes=max_bytes,
        deadline_sec=deadline_sec,
        readers=_READERS_A_PROCESS,
        decoders=_DECODERS_A_PROCESS,
    )
    return [
        _Helper(settings, _images_in_chunk(views), image_bytes)
        for _ in range(math.ceil(available_cores() / _CORES_A_PROCESS))
    ]


def _images_in_chunk(views: int) -> int:
    return max(1, _CHUNK // views)


class ParallelLoader:
    """Loads images in the order in which their locations were added, as an `ImageLoader` does. Linux only.

    Local files are loaded in other processes. Images in remote storage are loaded by threads of this process: reading
    them is what takes the time, and it takes the credentials of this process.

    Args:
      here: loads what is not a local file.
      decode: decodes bytes to pixels, as `ImageLoader`'s; picklable and hashable.
      views: the number of views of an image. With several, `decode` takes the digest too.
      max_bytes: larger files fail.
      deadline_sec: a read that takes longer counts as a fault of the machine.
      max_ahead: the number of images that are loaded ahead.
      image_bytes: of the pixels of an image with all its views; larger ones take a slower way.
    """

    def __init__(
        self,
        *,
        here: ImageLoader,
        decode: Callable[..., np.ndarray],
        views: int = 1,
        max_bytes: int,
        deadline_sec: float,
        max_ahead: int,
        image_bytes: int,
    ):
        self._here = here
        helpers = _helpers(decode, views, max_bytes, deadline_sec, image_bytes, os.getpid())
        self._chunk = _images_in_chunk(views)
        self._turns = itertools.cycle(helpers)
        self._max_ahead = max_ahead
        self._locations: Iterator[str] = iter(())
        # In order: chunks that helpers load, and counts of images that `here` loads.
        self._ahead: collections.deque[tuple[int, concurrent.futures.Future[_Results] | None]] = collections.deque()
        self._images_ahead = 0
        self._loaded: collections.deque[Outcome | BaseException] = collections.deque()

    def add(self, locations: Iterable[str]) -> None:
        """Adds images to the end of the queue."""
        self._locations = itertools.chain(self._locations, locations)
        self._load_ahead()

    def next(self) -> Outcome:
        """As `ImageLoader.next`. The pixels lie in memory that is used again when nobody refers to them."""
        if not self._loaded:
            count, future = self._ahead.popleft()
            if future is None:
                outcome = self._here.next()
                if count > 1:
                    self._ahead.appendleft((count - 1, None))
                self._images_ahead -= 1
                self._load_ahead()
                return outcome
            self._loaded.extend(future.result())
        loaded = self._loaded.popleft()
        self._images_ahead -= 1
        if not self._loaded:
            self._load_ahead()
        if isinstance(loaded, BaseException) and not isinstance(loaded, RowFailure):
            raise loaded
        return loaded

    def _load_ahead(self) -> None:
        while self._images_ahead < self._max_ahead:
            chunk = list(itertools.islice(self._locations, self._chunk))
            if not chunk:
                return
            self._images_ahead += len(chunk)
            future = None if any(map(has_scheme, chunk)) else next(self._turns).submit(chunk)
            if future is None:
                self._here.add(chunk)
            self._ahead.append((len(chunk), future))
