"""A helper process of `images.parallel_loader`: loads local images, and leaves their pixels in shared memory.

It is started as `python -m preprocess.images.load_worker DESCRIPTOR`, the shared memory. Standard input brings its
settings, and then requests; standard output takes the outcomes of each. The images go no further than the decoders,
which are confined children of this process. It ends when its parent ends.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import mmap
import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

import numpy as np

from preprocess.images.loader import ImageLoader, LoadedImage, Outcome, use_threads
from preprocess.images.read import read_image_bytes

_LENGTH = struct.Struct("=Q")
_NO_PIXELS = np.empty(0, np.uint8)


class Request(NamedTuple):
    """Images to load.

    Attributes:
      start: where the pixels of the first go: bytes from the start of the shared memory.
      image_bytes: bytes from one image to the next.
      locations: their local paths.
    """

    start: int
    image_bytes: int
    locations: tuple[str, ...]


class Placed(NamedTuple):
    """An image whose pixels lie in the shared memory: all else of it, and their shape."""

    image: LoadedImage
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are loaded.

    Attributes:
      decode: decodes bytes to pixels, as `ImageLoader`'s.
      decodes_views: as `ImageLoader`'s.
      max_bytes: larger files fail.
      deadline_sec: a read that takes longer counts as a fault of the machine.
      readers: files that are read at once.
      decoders: images that are decoded at once.
    """

    decode: Callable[..., np.ndarray]
    decodes_views: bool
    max_bytes: int
    deadline_sec: float
    readers: int
    decoders: int

    def load(self, locations: tuple[str, ...]) -> ImageLoader:
        """A loader that has begun to load local images."""
        read = functools.partial(read_image_bytes, read_remote=_no_remote, max_bytes=self.max_bytes)
        loader = ImageLoader(
            read=read,
            decode=self.decode,
            decodes_views=self.decodes_views,
            max_ahead=len(locations),
            deadline_sec=self.deadline_sec,
        )
        loader.add(locations)
        return loader


def write_message(stream: IO[bytes] | None, message: Any) -> None:
    """Writes a pickled object; raises OSError if nobody reads."""
    assert stream is not None
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read_message(stream: IO[bytes] | None) -> Any:
    """What `write_message` wrote; raises EOFError at the end."""
    assert stream is not None
    header = stream.read(_LENGTH.size)
    data = stream.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
    if not data:
        raise EOFError("no further message")
    return pickle.loads(data)


def _no_remote(location: str, /, *, max_bytes: int | None = None) -> bytes:
    raise AssertionError(f"{location} is not a local file")


def _next(loader: ImageLoader) -> Outcome | BaseException:
    try:
        return loader.next()
    except Exception as error:
        try:
            return pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {error}")


def _place(
    outcome: Outcome | BaseException, memory: mmap.mmap, start: int, room: int
) -> Outcome | BaseException | Placed:
    """Puts the pixels of an outcome into the shared memory, if it has some and they fit."""
    if not isinstance(outcome, LoadedImage) or outcome.pixels.nbytes > room:
        return outcome
    pixels = outcome.pixels
    memory[start : start + pixels.nbytes] = np.ascontiguousarray(pixels).reshape(-1).data
    return Placed(dataclasses.replace(outcome, pixels=_NO_PIXELS), pixels.shape)


def serve(descriptor: int) -> None:
    """Answers requests until the parent closes standard input."""
    # Ctrl-C goes to the whole process group; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What libraries print must not get between the replies.
    settings: Settings = read_message(requests)
    use_threads(readers=settings.readers, decoders=settings.decoders)
    memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    begun: SimpleQueue[tuple[Request, ImageLoader]] = SimpleQueue()

    def take_requests() -> None:
        # In a thread, so that the images of the next request are loaded while those of this one are handed on.
        while True:
            try:
                request: Request = read_message(requests)
            except (EOFError, OSError):
                os._exit(0)  # The parent has ended, or needs this process no more.
            begun.put((request, settings.load(request.locations)))

    threading.Thread(target=take_requests, daemon=True).start()
    while True:
        request, loader = begun.get()
        starts = itertools.count(request.start, request.image_bytes)
        outcomes = [
            _place(_next(loader), memory, start, request.image_bytes)
            for start, _ in zip(starts, request.locations, strict=False)
        ]
        try:
            write_message(replies, outcomes)
        except OSError:
            return  # The parent has ended.


if __name__ == "__main__":
    # By its name, under which the other process knows the classes of messages; here they are those of "__main__".
    from preprocess.images import load_worker

    load_worker.serve(int(sys.argv[1]))
