"""The child process of `images.isolated_decoder`: reads image bytes from a pipe, and answers with pixels or a reason.

It is started as `python -m preprocess.images.decode_worker`. It imports only NumPy, Pillow and `images.decode`, so that
it starts fast and can use its memory for images. Before the first image it gives up all rights that decoding does not
need (`images.confinement`), so all modules that Pillow may import later are imported here. Its memory is limited for
each image. The parent process watches the deadline.

The formats of the pipes. Numbers have the machine's byte order, because both ends are on one machine:

    ready    CONFINED or UNCONFINED, once: whether the kernel filters the system calls
    request  REQUEST: tag, bytes of the image, largest accepted number of pixels, number of squares; for each of these a
             SQUARE: its side, number of its further views; and a FURTHER_VIEW for each view; the encoded image
    reply    REPLY: the request's tag, status, bytes that follow; pixels (uint8 [size, size, 3], one square after the
             other, of each one view after the other), or reason and message with a NUL between, at most
             MAX_MESSAGE_BYTES of them
"""

from __future__ import annotations

import copy  # noqa: F401 (like ImageCms: Pillow imports it for some images, but this process cannot import then)
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

import numpy as np
from PIL import AvifImagePlugin, Image, ImageCms  # noqa: F401 (see above)

from preprocess.images.confinement import confine
from preprocess.images.decode import ImageError, Square, decode_squares, pi_heif
from preprocess.images.resample import resize_state
from preprocess.records.views import Distortion

CONFINED, UNCONFINED = b"\1", b"\2"
REQUEST = struct.Struct("=QQQQ")
SQUARE = struct.Struct("=QQ")
# Side, left, top, mirrored. The engine applies the brightness.
FURTHER_VIEW = struct.Struct("=QQQ?")
REPLY = struct.Struct("=QBQ")
PIXELS, IMAGE_ERROR, OTHER_ERROR = range(3)
MAX_MESSAGE_BYTES = 16 * 1024

# The memory that the process may allocate for an image. The smallest limits that suffice, measured at 24 megapixels in
# bytes a pixel: PNG, BMP, GIF and TIFF 1 to 9, JPEG 0.1 (progressive 4, CMYK 8), AVIF 4 to 13, PPM of 16 bits 13, WebP
# 17, CMYK TIFF 20, JPEG 2000 20, and with alpha 25.
_BYTES_PER_PIXEL = 32
# The interpreter, NumPy and Pillow take 30 MB before the first image, and codecs need some memory of their own.
_BASE_BYTES = 512 * 1024 * 1024
# The encoded image and copies of parts of it: chunks put together, profiles, strips.
_COPIES_OF_ENCODED = 4

# Pillow keeps a picture of up to this size in one block of memory, which the compiled resize can read (a multiple of
# 4096). The default is 16 MB, 4 megapixels.
_PILLOW_BLOCK_BYTES = 1024 * 1024 * 1024

# It loads the compiled resize, since no file can be opened later.
resize_state()

_PR_SET_PDEATHSIG = 1


class Decode(Protocol):
    """`decode_squares`, or a stand-in for it in tests."""

    def __call__(self, data: bytes, squares: Sequence[Square], *, max_pixels: int) -> Sequence[np.ndarray]:
        """Bytes to the pixels of each view of each square, uint8 [size, size, 3]; raises ImageError."""


def write_all(descriptor: int, header: bytes, body: bytes | memoryview) -> None:
    """Writes header and body completely to a blocking pipe; raises BrokenPipeError if the reader has closed it."""
    written = os.writev(descriptor, (header, body))
    # A header is always written at once, because it is much shorter than the buffer of a pipe.
    rest = memoryview(body)[written - len(header) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def serve(decode: Decode = decode_squares) -> None:
    """Answers requests on standard input until it ends. Changes signals, limits and rights of the whole process."""
    # Ctrl-C goes to the whole process group; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _end_with_parent()
        _end_before_parent_when_memory_is_short()
    requests = sys.stdin.buffer
    # C libraries may print to standard output. That must not get between the replies.
    replies = os.dup(1)
    os.dup2(2, 1)
    # There is one child for each core, so a decoder starts no threads of its own.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if pi_heif is not None:
        pi_heif.options.DECODE_THREADS = 1
    Image.core.set_block_size(_PILLOW_BLOCK_BYTES)
    os.write(replies, CONFINED if confine(threads=pi_heif is not None) else UNCONFINED)
    try:
        while _answer_one(requests, replies, decode):
            pass
    except BrokenPipeError:
        return  # The parent has ended.


def _end_with_parent() -> None:
    """Tells the kernel to kill this process when the thread ends that started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_before_parent_when_memory_is_short() -> None:
    # Ending this process costs one row, ending the parent costs the job.
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("500")
    except OSError:
        return  # The container has no writable /proc, or the score is already higher.


def _answer_one(requests: BinaryIO, replies: int, decode: Decode) -> bool:
    """Reads one request and answers it; returns False if there is no more request."""
    header = requests.read(REQUEST.size)
    if len(header) < REQUEST.size:
        return False
    tag, num_bytes, max_pixels, number = REQUEST.unpack(header)
    squares = [_read_square(requests) for _ in range(number)]
    pixels = sum(3 * square.size**2 * (1 + len(square.distortions)) for square in squares)
    # Beside one picture: each picture, and all together for the answer.
    further_pixels = 2 * (pixels - 3 * squares[0].size ** 2)
    _limit_memory(_BASE_BYTES + _COPIES_OF_ENCODED * num_bytes + _BYTES_PER_PIXEL * max_pixels + further_pixels)
    data = requests.read(num_bytes)
    if len(data) < num_bytes:
        return False
    status, body = _outcome(lambda: _joined(decode(data, squares, max_pixels=max_pixels)))
    write_all(replies, REPLY.pack(tag, status, len(body)), body)
    return True


def _read_square(requests: BinaryIO) -> Square:
    size, further_views = SQUARE.unpack(requests.read(SQUARE.size))
    packed = requests.read(further_views * FURTHER_VIEW.size)
    return Square(
        size,
        [
            Distortion(side, left, top, mirrored, brightness=1.0)
            for side, left, top, mirrored in FURTHER_VIEW.iter_unpack(packed)
        ],
    )


def _joined(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return pictures[0] if len(pictures) == 1 else np.concatenate([picture.reshape(-1) for picture in pictures])


def _limit_memory(num_bytes: int) -> None:
    # RLIMIT_DATA counts allocated memory. RLIMIT_AS would also count libraries and stacks of threads, which vary.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _outcome(decode: Callable[[], np.ndarray]) -> tuple[int, bytes | memoryview]:
    try:
        return PIXELS, np.ascontiguousarray(decode()).reshape(-1).data
    except ImageError as error:
        if isinstance(error.__cause__, (ImportError, PermissionError)):
            # This is not a fault of the image: the decoder needs a right that this process has given up.
            return OTHER_ERROR, _reason_and_message(type(error.__cause__).__name__, str(error.__cause__))
        return IMAGE_ERROR, _reason_and_message(error.reason, error.message)
    except MemoryError:
        return IMAGE_ERROR, _reason_and_message("out_of_memory", "decoding takes more memory than it may have")
    except Exception as error:
        return OTHER_ERROR, _reason_and_message(type(error).__name__, str(error))


def _reason_and_message(reason: str, message: str) -> bytes:
    # A character takes at most six bytes, so the message is always shorter than MAX_MESSAGE_BYTES.
    return f"{reason}\0{message[: MAX_MESSAGE_BYTES // 8]}".encode("utf-8", "backslashreplace")


if __name__ == "__main__":
    serve()
