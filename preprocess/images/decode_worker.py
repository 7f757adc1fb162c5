"""The child process of `images.isolated_decoder`: image bytes in on a pipe, pixels or a reason out on another.

Started as `python -m preprocess.images.decode_worker`. It imports NumPy, Pillow and `images.decode` and nothing else,
so that it is ready in a moment and what it may allocate is for images. Before the first image it gives up whatever
decoding does not need (`images.confinement`), so all that Pillow imports on the way is imported here. Its memory is
limited for each image; that it takes no longer than it may is its parent's affair.

The formats of the pipes, in the machine's byte order, since both ends are on one machine:

    ready    CONFINED or UNCONFINED, once: whether the kernel filters the system calls
    request  REQUEST: tag, bytes that follow, largest accepted number of pixels; the encoded image
    reply    REPLY: the request's tag, status, bytes that follow; pixels (uint8 [299, 299, 3]), or reason and message
             with a NUL between, at most MAX_MESSAGE_BYTES of them
"""

from __future__ import annotations

import copy  # noqa: F401 (like ImageCms: Pillow imports it when an image first needs it, and by then it cannot)
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO, Protocol

import numpy as np
from PIL import AvifImagePlugin, ImageCms  # noqa: F401 (see above)

from preprocess.images.confinement import confine
from preprocess.images.decode import ImageError, decode_image

CONFINED, UNCONFINED = b"\1", b"\2"
REQUEST = struct.Struct("=QQQ")
REPLY = struct.Struct("=QBQ")
PIXELS, IMAGE_ERROR, OTHER_ERROR = range(3)
MAX_MESSAGE_BYTES = 16 * 1024

# What the process may allocate for an image. Measured at 24 megapixels as the smallest limit with which it decodes, in
# bytes a pixel: PNG, BMP, GIF and TIFF 1 to 9, JPEG 0.1 (progressive 4, of CMYK 8), AVIF 4 to 13, PPM of 16 bits 13,
# WebP 17, CMYK TIFF 20, JPEG 2000 20, and with alpha 25.
_BYTES_PER_PIXEL = 32
# The interpreter, NumPy and Pillow take 30 MB before the first image, and codecs some for themselves.
_BASE_BYTES = 512 * 1024 * 1024
# The encoded image and copies of parts of it: chunks put together, profiles, strips.
_COPIES_OF_ENCODED = 4

_PR_SET_PDEATHSIG = 1


class Decode(Protocol):
    """`decode_image`, or what stands in for it."""

    def __call__(self, data: bytes, *, max_pixels: int) -> np.ndarray:
        """Bytes to pixels, uint8 [299, 299, 3]; raises ImageError."""


def write_all(descriptor: int, header: bytes, body: bytes | memoryview) -> None:
    """Writes both to a blocking pipe, however long they are; raises BrokenPipeError where nobody reads."""
    written = os.writev(descriptor, (header, body))
    # A header is far shorter than what a pipe takes at once.
    rest = memoryview(body)[written - len(header) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def serve(decode: Decode = decode_image) -> None:
    """Answers requests on standard input until it ends. Changes signals, limits and rights of the whole process."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _end_with_parent()
        _end_before_parent_when_memory_is_short()
    requests = sys.stdin.buffer
    # What a C library prints must not come between replies.
    replies = os.dup(1)
    os.dup2(2, 1)
    # As many children as there are cores decode at once, and none may start a thread.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    os.write(replies, CONFINED if confine() else UNCONFINED)
    try:
        while _answer_one(requests, replies, decode):
            pass
    except BrokenPipeError:
        return  # The parent has gone.


def _end_with_parent() -> None:
    """Asks the kernel to end this process with the thread that started it, also in the middle of an image."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_before_parent_when_memory_is_short() -> None:
    # Ending this process costs one row, ending the parent costs the job.
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("500")
    except OSError:
        return  # A container without a writable /proc, or one that has more in store for us already.


def _answer_one(requests: BinaryIO, replies: int, decode: Decode) -> bool:
    """Takes one request and answers it; False where there is none. Keeps nothing of it."""
    header = requests.read(REQUEST.size)
    if len(header) < REQUEST.size:
        return False
    tag, num_bytes, max_pixels = REQUEST.unpack(header)
    _limit_memory(_BASE_BYTES + _COPIES_OF_ENCODED * num_bytes + _BYTES_PER_PIXEL * max_pixels)
    data = requests.read(num_bytes)
    if len(data) < num_bytes:
        return False
    status, body = _outcome(lambda: decode(data, max_pixels=max_pixels))
    write_all(replies, REPLY.pack(tag, status, len(body)), body)
    return True


def _limit_memory(num_bytes: int) -> None:
    # RLIMIT_DATA counts what is allocated, RLIMIT_AS also the libraries and the reserves of threads, which vary.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _outcome(decode: Callable[[], np.ndarray]) -> tuple[int, bytes | memoryview]:
    try:
        return PIXELS, np.ascontiguousarray(decode()).reshape(-1).data
    except ImageError as error:
        if isinstance(error.__cause__, (ImportError, PermissionError)):
            # Not the image: what decodes it wants something that this process has given up.
            return OTHER_ERROR, _reason_and_message(type(error.__cause__).__name__, str(error.__cause__))
        return IMAGE_ERROR, _reason_and_message(error.reason, error.message)
    except MemoryError:
        return IMAGE_ERROR, _reason_and_message("out_of_memory", "decoding takes more memory than it may have")
    except Exception as error:
        return OTHER_ERROR, _reason_and_message(type(error).__name__, str(error))


def _reason_and_message(reason: str, message: str) -> bytes:
    # At most six bytes a character, so that none is cut in two.
    return f"{reason}\0{message[: MAX_MESSAGE_BYTES // 8]}".encode("utf-8", "backslashreplace")


if __name__ == "__main__":
    serve()
