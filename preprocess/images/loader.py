"""Reads and decodes images ahead, in order, with bounded memory and bounded waits.

There are two pools of threads. Reading waits for storage, so many readers are needed to hide its latency: 32 readers
hide 50 ms an object at 600 images a second. Decoding uses the cores, and one image may need hundreds of megabytes, so
there are only as many decoders as cores.

A failure of an image is the outcome of its row. A fault of the machine (`machine.machine_faults`) is tried again, and
if that does not help it is raised. So no image that may be good is counted as failed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from configs.errors import InputError
from preprocess.images.decode import ImageError
from preprocess.images.host_queues import DEFAULT_CONNECTIONS_PER_HOST, HostQueues
from preprocess.lists.outcomes import RowFailure, Stage
from preprocess.machine.cores import available_cores
from preprocess.machine.machine_faults import TRY_AGAIN, MachineFault, Patience, in_one_line, is_machine_fault
from preprocess.machine.timed_threads import DaemonThreads, TimedThreads
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.uris import host_of, shown

READ_THREADS = 32
# The largest size of all encoded images that wait for a decoder: fifty photos of 5 MB.
MAX_ENCODED_BYTES = 256 * 1024 * 1024
DEFAULT_DEADLINE_SEC = 60.0
# Looking up an embedding is done to save time, so its deadline is short.
LOOK_UP_DEADLINE_SEC = 10.0
# The requests to a web host have deadlines of their own, so that a slow host costs its own images. Those come first:
# this is for what they do not cover, to look up names and to ask other hosts whether the network is gone.
_WEB_EXTRA_SEC = 45.0
# After a fault of the machine, images are decoded again one at a time, because memory may be short.
_decoded_again = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FoundEmbedding:
    """An embedding that was looked up.

    Attributes:
      embedding: float32 [n]; of several views [views, n].
      image_hash: the perceptual hash of the image; empty if only the embedding is known.
    """

    embedding: np.ndarray
    image_hash: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An image, with the time that it took.

    Attributes:
      pixels: uint8 [height, width, 3]; of several views [views, height, width, 3]; of several sizes as
        `images.pixel_layout` says.
      digest: the SHA-256 of the encoded bytes, 32 bytes.
      num_bytes: the number of encoded bytes.
      read_sec: seconds for reading, for the digest and for looking up embeddings.
      decode_sec: seconds for decoding.
      found: what looking up gave for each backbone, if it gave something, but not all that is wanted; else empty.
    """

    pixels: np.ndarray
    digest: bytes
    num_bytes: int
    read_sec: float
    decode_sec: float
    found: tuple[FoundEmbedding | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KnownImage:
    """An image whose embeddings were found by its digest, so it was not decoded.

    Attributes:
      found: what was found, for each backbone.
      digest: the SHA-256 of the encoded bytes, 32 bytes.
      num_bytes: the number of encoded bytes.
      read_sec: seconds for reading, for the digest and for looking up the embeddings.
      is_repeated: `recall` found it: an earlier image of this run has the same bytes.
    """

    found: tuple[FoundEmbedding, ...]
    digest: bytes
    num_bytes: int
    read_sec: float
    is_repeated: bool = False


Outcome = LoadedImage | KnownImage | RowFailure
# Looks up the embeddings of an image by the SHA-256 of its file: one for each backbone, None for those not known.
FindEmbeddings = Callable[[bytes], tuple[FoundEmbedding | None, ...]]
# The same for what is in memory: the embeddings of all backbones, or None if one of them is not there.
RecallEmbeddings = Callable[[bytes], tuple[FoundEmbedding, ...] | None]


_threads: tuple[int, int] | None = None


def use_threads(*, readers: int, decoders: int) -> None:
    """Sets the threads of this process, before it loads the first image; otherwise it has a decoder for each core."""
    global _threads
    _threads = readers, decoders


@functools.lru_cache(maxsize=1)
def _pools() -> tuple[TimedThreads, DaemonThreads]:
    """The pools of readers and decoders of this process. All threads of a worker that run the stage share them."""
    readers, decoders = _threads or (READ_THREADS, available_cores())
    return TimedThreads(readers, "read"), DaemonThreads(decoders, "decode")


@functools.cache
def _host_queues(connections_per_host: int) -> HostQueues[_LoadTask]:
    """The images of web hosts that wait; all threads of the process share the limit."""
    return HostQueues(lambda task: _pools()[0].submit(task), connections_per_host)


class ImageLoader:
    """Loads images in the order in which their locations were added.

    All calls come from one thread. The largest memory that it needs is the sum of: the pixels of `max_ahead` images;
    `max_encoded_bytes` of encoded images that wait or are decoded; one file for each of the READ_THREADS; and for each
    core the memory for decoding one image, in this process or in the decoder's child. For an image of 100 megapixels
    that is 0.1 to 1.3 GB in most formats, and 2 to 2.5 GB as JPEG 2000 or CMYK TIFF.

    Args:
      read: reads the bytes of an image from its location; raises RowFailure. It runs in threads.
      decode: decodes bytes to pixels, uint8 [height, width, 3]; raises ImageError. It runs in threads and must not hang
        (`preprocess.images.isolated_decoder` does not).
      decodes_views: `decode` also takes the digest, from which it draws views, and gives the pixels of all views.
      max_ahead: the number of images that are loaded ahead.
      max_encoded_bytes: no read starts while the images that wait for a decoder have this many bytes.
      deadline_sec: a read that takes longer counts as a fault of the machine, and its thread is replaced.
      find_embeddings: looks up the embeddings of the image for each backbone by its digest (SHA-256, 32 bytes). An
        image is decoded unless all are known. It runs in threads.
      wants_hashes: an image is decoded, too, if an embedding is found without the hash of the image.
      look_up_deadline_sec: if looking up takes longer, the embeddings count as not known.
      recall: looks them up in memory: all of them, or None. It is asked first, and must not wait or fail.
      try_again: how long an image is tried again after a fault of the machine, without the time of the attempts.
      connections_per_host: how many images of one web host are read at once.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], bytes],
        decode: Callable[..., np.ndarray],
        decodes_views: bool = False,
        max_ahead: int,
        max_encoded_bytes: int = MAX_ENCODED_BYTES,
        deadline_sec: float = DEFAULT_DEADLINE_SEC,
        find_embeddings: FindEmbeddings | None = None,
        wants_hashes: bool = False,
        look_up_deadline_sec: float = LOOK_UP_DEADLINE_SEC,
        recall: RecallEmbeddings | None = None,
        try_again: RetryPolicy = TRY_AGAIN,
        connections_per_host: int = DEFAULT_CONNECTIONS_PER_HOST,
    ):
        queues = _host_queues(connections_per_host)
        self._how = _How(
            read,
            decode,
            decodes_views,
            find_embeddings,
            wants_hashes,
            deadline_sec,
            look_up_deadline_sec,
            recall,
            try_again,
            queues,
        )
        self._max_ahead = max_ahead
        self._budget = _ByteBudget(max_encoded_bytes)
        self._locations: Iterator[str] = iter(())
        self._ahead: collections.deque[concurrent.futures.Future[Outcome]] = collections.deque()

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the encoded images that wait for a decoder or are being decoded."""
        return self._budget.held

    @property
    def next_is_ready(self) -> bool:
        """Whether `next` returns without waiting."""
        return bool(self._ahead) and self._ahead[0].done()

    def add(self, locations: Iterable[str]) -> None:
        """Adds images to the end of the queue."""
        self._locations = itertools.chain(self._locations, locations)
        self._load_ahead()

    def next(self) -> Outcome:
        """Waits for the next image; returns it, or its failure.

        Raises:
          IndexError: no image is left.
          MachineFault: this machine or its storage failed repeatedly; that says nothing about the image.
          InputError: locations of this kind cannot be opened here.
        """
        result = self._ahead.popleft().result()
        self._load_ahead()
        return result

    def _load_ahead(self) -> None:
        while len(self._ahead) < self._max_ahead:
            location = next(self._locations, None)
            if location is None:
                return
            task = _LoadTask(location, self._how, self._budget)
            self._ahead.append(task.future)
            task.submit()


class _ByteBudget:
    """A limit on the bytes that are held at once; readers wait until fewer are held."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._freed = threading.Condition()
        self.held = 0

    def wait(self) -> None:
        with self._freed:
            # Decoders do not wait for readers, so the number of bytes goes down.
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
class _How:
    """The settings of a loader, which are the same for all its images."""

    read: Callable[[str], bytes]
    decode: Callable[..., np.ndarray]
    decodes_views: bool
    find_embeddings: FindEmbeddings | None
    wants_hashes: bool
    deadline_sec: float
    look_up_deadline_sec: float
    recall: RecallEmbeddings | None
    try_again: RetryPolicy
    queues: HostQueues[_LoadTask]


@dataclasses.dataclass(frozen=True, slots=True)
class _Encoded:
    data: bytes
    digest: bytes
    read_sec: float
    found: tuple[FoundEmbedding | None, ...] = ()


class _LoadTask:
    """The `TimedTask` that reads one image. Its future gets the outcome of the image."""

    def __init__(self, location: str, how: _How, budget: _ByteBudget):
        self.future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        self._location = location
        self._host = host_of(location)
        self._how = how
        self._budget = budget
        self._patience = Patience(how.try_again)
        self._wait_sec = 0.0
        self._read: _Encoded | BaseException | None = None

    def submit(self) -> None:
        """Submits it to the pool of readers; an image of a busy web host waits for its turn first."""
        if self._host is None:
            _pools()[0].submit(self)
        else:
            self._how.queues.submit(self._host, self)

    @property
    def deadline_sec(self) -> float:
        return self._how.deadline_sec + (_WEB_EXTRA_SEC if self._host is not None else 0.0)

    @property
    def wants_hash(self) -> bool:
        """Whether the image is decoded if its embedding is found without its hash."""
        return self._how.wants_hashes

    def prepare(self) -> None:
        if self._wait_sec:  # Even sleep(0) releases the interpreter's lock.
            time.sleep(self._wait_sec)
        self._budget.wait()

    def run(self) -> None:
        try:
            started = time.perf_counter()
            data = self._how.read(self._location)
            digest = hashlib.sha256(data).digest()
            self._read = _Encoded(data, digest, time.perf_counter() - started)
        except BaseException as error:
            self._read = error

    def finish(self) -> _LookUpTask | None:
        if self._host is not None:
            self._how.queues.end(self._host)
        read, self._read = self._read, None
        assert read is not None
        if isinstance(read, _Encoded):
            recalled = self._how.recall(read.digest) if self._how.recall else None
            if recalled is not None:
                self.future.set_result(
                    KnownImage(recalled, read.digest, len(read.data), read.read_sec, is_repeated=True)
                )
            elif self._how.find_embeddings:
                return _LookUpTask(self, read, self._how.find_embeddings, self._how.look_up_deadline_sec)
            else:
                self.decode(read)
        elif isinstance(read, RowFailure):
            self.future.set_result(read)
        elif isinstance(read, InputError):
            self.future.set_exception(read)
        elif is_machine_fault(read):
            self._read_again(read)
        else:
            self.future.set_result(_unexpected("read", read))
        return None

    def give_up(self, error: OSError | None) -> None:
        if self._host is not None:
            self._how.queues.end(self._host)
        if error is not None:
            self.future.set_exception(error)
            return
        self._read_again(MachineFault(f"{shown(self._location)}: reading took longer than {self.deadline_sec:g} s"))

    def _read_again(self, fault: BaseException) -> None:
        wait_sec = self._patience.next_wait_sec()
        if wait_sec is None:
            self.future.set_exception(self._persistent(fault))
            return
        # A new task with the same future, because the hanging read of this task may still end and set its result.
        again = _LoadTask(self._location, self._how, self._budget)
        again.future, again._patience, again._wait_sec = self.future, self._patience, wait_sec
        again.submit()

    def _persistent(self, fault: BaseException) -> MachineFault:
        message, name = in_one_line(fault), shown(self._location)
        if not message.startswith(name):
            message = f"{name}: {message}"
        error = MachineFault(
            f"{message.rstrip('.')} (tried {self._patience.tries} times). If only this file cannot be read or "
            "decoded here, move it away, and it counts as missing."
        )
        error.__cause__ = fault
        return error

    def decode(self, encoded: _Encoded) -> None:
        """Submits the image to the pool of decoders."""
        self._budget.take(len(encoded.data))
        _, decoders = _pools()
        decoders.submit(functools.partial(self._decode_one, encoded))

    def _decode_one(self, encoded: _Encoded) -> None:
        try:
            outcome = self._outcome_of_decoding(encoded)
        except MachineFault as fault:
            self.future.set_exception(fault)
            return
        finally:
            self._budget.free(len(encoded.data))
        self.future.set_result(outcome)

    def _outcome_of_decoding(self, encoded: _Encoded) -> Outcome:
        self._patience = Patience(self._how.try_again)
        while True:
            try:
                with _decoded_again if self._patience.tries else contextlib.nullcontext():
                    started = time.perf_counter()
                    digest = (encoded.digest,) if self._how.decodes_views else ()
                    pixels = self._how.decode(encoded.data, *digest)
                    decode_sec = time.perf_counter() - started
            except ImageError as error:
                return RowFailure("decode", error.reason, error.message)
            except BaseException as error:
                if not is_machine_fault(error):
                    return _unexpected("decode", error)
                wait_sec = self._patience.next_wait_sec()
                if wait_sec is None:
                    raise self._persistent(error) from error
            else:
                return LoadedImage(
                    pixels, encoded.digest, len(encoded.data), encoded.read_sec, decode_sec, encoded.found
                )
            time.sleep(wait_sec)


class _LookUpTask:
    """The `TimedTask` that looks up the embeddings of an image. If that fails or hangs, the image is decoded."""

    def __init__(self, image: _LoadTask, encoded: _Encoded, find: FindEmbeddings, deadline_sec: float):
        self._image = image
        self._encoded = encoded
        self._find = find
        self._deadline_sec = deadline_sec
        self._found: tuple[FoundEmbedding | None, ...] = ()
        self._sec = 0.0

    @property
    def deadline_sec(self) -> float:
        return self._deadline_sec

    def prepare(self) -> None:
        return

    def run(self) -> None:
        started = time.perf_counter()
        with contextlib.suppress(Exception):
            self._found = self._find(self._encoded.digest)
        self._sec = time.perf_counter() - started

    def finish(self) -> None:
        encoded, found = self._encoded, self._found
        read_sec = encoded.read_sec + self._sec
        known = tuple(one for one in found if one is not None)
        if (
            not known
            or len(known) < len(found)
            or (self._image.wants_hash and not all(one.image_hash for one in known))
        ):
            self._image.decode(dataclasses.replace(encoded, read_sec=read_sec, found=found if known else ()))
            return
        self._image.future.set_result(KnownImage(known, encoded.digest, len(encoded.data), read_sec))

    def give_up(self, error: OSError | None) -> None:
        self._image.decode(self._encoded)


def _unexpected(stage: Stage, error: BaseException) -> RowFailure:
    # An unexpected exception of a reader or decoder fails only its row, not the job.
    return RowFailure(stage, "unexpected_error", f"{type(error).__name__}: {error}")
