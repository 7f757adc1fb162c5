"""Decodes images in child processes, so that a decoder that crashes or hangs fails only its own row.

Decoders are C libraries, and their input may be any file. A crash ends the whole process, a decoder that hangs blocks
its thread forever, and a wrong size in a header may fill the memory. A thread cannot be protected against this, but a
child process can be ended (`images.decode_worker` is the code of the child). Each decoding thread has its own child. It
is started when it is first needed, in 0.1 to 0.2 s, and again after it has ended.

An image may take over a decoder, so a child gets only what decoding needs: a minimal environment, its pipes and no
folder. The kernel refuses it everything else (`images.confinement`). This process ends the child at the deadline,
because the child itself may be stopped. An answer is accepted only for the image of its request: each request has a tag
that cannot be predicted. If an answer has another tag or form, the child is ended.

Measured on 400 photos of 65 KB on 2 cores: 1.75 to 1.8 ms an image, while `decode_image` in this process takes 1.55 to
1.6 ms (0.3 ms more on a busy machine). Of the difference, 0.1 ms is CPU time, and the rest is waking up. With two
threads it decodes 1050 to 1200 images a second, compared with 1050 to 1240 in this process. `benchmarks.hostile`
measures both in turns, and finds 0.90 to 0.99 of the rate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, get_args

import numpy as np

from preprocess.images.decode import IMAGE_SIZE, MAX_IMAGE_PIXELS, ImageError, ImageErrorReason, Square
from preprocess.images.decode_worker import (
    CONFINED,
    FURTHER_VIEW,
    IMAGE_ERROR,
    MAX_MESSAGE_BYTES,
    OTHER_ERROR,
    PIXELS,
    REPLY,
    REQUEST,
    SQUARE,
    UNCONFINED,
    write_all,
)
from preprocess.images.pixel_layout import PixelLayout
from preprocess.machine.deadlines import DeadlineWatch
from preprocess.machine.import_path import import_path
from preprocess.machine.machine_faults import MachineFault, in_one_line
from preprocess.records.views import Views

_LOGGER = logging.getLogger(__name__)

DEFAULT_DEADLINE_SEC = 60.0
# The deadline for starting a child, which takes 0.1 to 0.2 s on an idle machine.
_START_DEADLINE_SEC = 60.0
_WORKER_MODULE = "preprocess.images.decode_worker"
# With the default of 64 KiB, the pixels of an image would need five reads and waits. Linux allows this size to all
# users.
_PIPE_BYTES = 1024 * 1024
# Tells glibc to keep memory for the next image. Otherwise the kernel provides zeroed pages for each image, which took
# 0.6 ms of 2.1 ms for a photo.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(16 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024)}
_REASONS = frozenset(get_args(ImageErrorReason))
# Random numbers from the kernel, because a fork would share the state of other generators.
_random = random.SystemRandom()
# Variables that the interpreter may need to find its libraries. A child gets no other (keys, tokens, proxies, home).
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
# Signals that a decoder causes itself. Every other signal that ends it comes from a person, or from the kernel when
# memory is short.
_OWN_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
)


@functools.cache
def _watch_of_process(pid: int) -> DeadlineWatch:
    """The watch of the decoders' deadlines. There is one for each process, because a fork has no threads."""
    return DeadlineWatch("decode-deadlines")


@functools.cache
def _say_unconfined() -> None:
    _LOGGER.warning(
        "Decoders run without a filter of their system calls, which this system does not offer (seccomp, on Linux, "
        "x86_64 or aarch64): an image that takes over a decoder could read what this user may read."
    )


class _ChildEnded(Exception):  # noqa: N818 (it says what happened to a process; the caller says what it means)
    """The child has ended: `returncode` is negative for a signal, as in `subprocess`.

    Attributes:
      returncode: of the process.
      had_request: whether it had received the request.
      late: whether it was ended because the deadline had passed.
      was_stopped: whether it was stopped at the deadline (SIGSTOP, a debugger).
    """

    def __init__(self, returncode: int, *, had_request: bool, late: bool = False, was_stopped: bool = False):
        super().__init__(returncode)
        self.returncode = returncode
        self.had_request = had_request
        self.late = late
        self.was_stopped = was_stopped


class _NoAnswer(Exception):  # noqa: N818 (likewise)
    """The child sent something that is not a valid answer to the request."""


def _new_tag() -> int:
    return _random.getrandbits(64)


class _Child:
    """One child process, which one thread uses.

    Raises:
      MachineFault: the process does not start.
    """

    def __init__(self, module: str):
        # Each child has one thread, because there is one child for each core.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {
            "PYTHONPATH": import_path(),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **_MALLOC,
        }
        # -P keeps the current folder out of its path.
        command = [sys.executable, "-P", "-m", module]
        self._watch = _watch_of_process(os.getpid())
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libtiff prints the faults of a file
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise MachineFault(f"the decoder process does not start: {in_one_line(error)}") from error
        self.owner_pid = os.getpid()
        self._was_stopped = False
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        for pipe in (self._requests, self._replies):
            _enlarge_pipe(pipe.fileno())
        clock = self._watch.start(_START_DEADLINE_SEC, self._end_late)
        ready = self._replies.read(1)
        self._watch.end(clock)
        if ready not in (CONFINED, UNCONFINED):
            self.end()
            raise MachineFault(
                f"the decoder process does not start: {' '.join(command)} ended with {_ending(self.returncode)}"
            )
        if ready == UNCONFINED:
            _say_unconfined()

    @property
    def returncode(self) -> int:
        """The return code of the process, which has ended."""
        return self._process.wait()

    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(
        self, data: bytes, squares: Sequence[Square], *, max_pixels: int, shape: tuple[int, ...], deadline_sec: float
    ) -> tuple[int, np.ndarray | bytes]:
        """Sends an image to the child; returns the status of the reply with the pixels, or with reason and message.

        Args:
          data: the encoded image.
          squares: what is made of it.
          max_pixels: as `IsolatedDecoder`'s.
          shape: of the array with the pixels of all squares.
          deadline_sec: as `IsolatedDecoder`'s.

        Raises:
          _ChildEnded: the child ended instead of replying.
          _NoAnswer: the reply is not valid.
        """
        clock = self._watch.start(deadline_sec, self._end_late)
        try:
            return self._ask(data, squares, max_pixels, shape)
        except _ChildEnded as ended:
            ended.late = not self._watch.end(clock)
            ended.was_stopped = self._was_stopped
            raise
        finally:
            self._watch.end(clock)

    def _end_late(self) -> None:
        self._was_stopped = _is_stopped(self._process.pid)
        self._process.kill()

    def _ask(
        self, data: bytes, squares: Sequence[Square], max_pixels: int, shape: tuple[int, ...]
    ) -> tuple[int, np.ndarray | bytes]:
        tag = _new_tag()
        header_of_request = b"".join(
            (REQUEST.pack(tag, len(data), max_pixels, len(squares)), *(_packed(square) for square in squares))
        )
        try:
            write_all(self._requests.fileno(), header_of_request, data)
        except BrokenPipeError:
            raise _ChildEnded(self.returncode, had_request=False) from None
        header = bytearray(REPLY.size)
        self._read_into(memoryview(header))
        replied_tag, status, num_bytes = REPLY.unpack(header)
        if replied_tag != tag:
            raise _NoAnswer
        if status == PIXELS:
            pixels = np.empty(shape, np.uint8)
            if num_bytes != pixels.nbytes:
                raise _NoAnswer
            self._read_into(pixels.reshape(-1).data)
            return status, pixels
        if status not in (IMAGE_ERROR, OTHER_ERROR) or num_bytes > MAX_MESSAGE_BYTES:
            raise _NoAnswer
        body = bytearray(num_bytes)
        self._read_into(memoryview(body))
        return status, bytes(body)

    def _read_into(self, view: memoryview) -> None:
        while view:
            num_bytes = self._replies.readinto(view)  # type: ignore[attr-defined]
            if not num_bytes:
                raise _ChildEnded(self.returncode, had_request=True)
            view = view[num_bytes:]

    def end(self) -> None:
        """Ends the process at once."""
        self._requests.close()
        self._replies.close()
        # After a fork the new process has a copy of this object, but the child is not its own.
        if self.owner_pid == os.getpid():
            self._process.kill()
            self._process.wait()

    def __del__(self) -> None:
        # The thread has ended. If the attribute is missing, no process was started.
        if hasattr(self, "_replies"):
            self.end()


def _packed(square: Square) -> bytes:
    return b"".join(
        (
            SQUARE.pack(square.size, len(square.distortions)),
            *(FURTHER_VIEW.pack(one.side, one.left, one.top, one.mirrored) for one in square.distortions),
        )
    )


def _enlarge_pipe(descriptor: int) -> None:
    set_size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if set_size is None:
        return  # not Linux
    try:
        fcntl.fcntl(descriptor, set_size, _PIPE_BYTES)
    except OSError:
        return  # The user's limit for all pipes is reached. A small pipe works too, but is slower.


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] in "Tt"
    return False


def _ending(returncode: int) -> str:
    """`signal SIGSEGV`, or `exit code 1`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


class _ChildOfThread(threading.local):
    """The child of the current thread. All decoders share it, because each request contains their settings."""

    child: _Child | None = None
    module: str = ""

    def get(self, module: str) -> _Child:
        """Returns a running child, and starts one if necessary."""
        child = self.child
        if child is None or self.module != module or child.owner_pid != os.getpid() or not child.is_running():
            self.drop()
            self.child = child = _Child(module)
            self.module = module
        return child

    def drop(self) -> None:
        """Ends the child, if there is one."""
        child, self.child = self.child, None
        if child is not None:
            child.end()


_child_of_thread = _ChildOfThread()


@dataclasses.dataclass(frozen=True, kw_only=True)
class IsolatedDecoder:
    """`preprocess.images.decode.decode_squares` in a child process of the calling thread. Picklable.

    Attributes:
      max_pixels: the largest accepted width x height, as declared in the file's header.
      deadline_sec: seconds that decoding one image may take, more than 0.
      size: the side of the square that the backbone takes.
      views: the views that are made of each image; None for one.
      further_sizes: the sides of further squares that are made of the same image, which is decoded once.
    """

    max_pixels: int = MAX_IMAGE_PIXELS
    deadline_sec: float = DEFAULT_DEADLINE_SEC
    size: int = IMAGE_SIZE
    views: Views | None = None
    further_sizes: tuple[int, ...] = ()
    _module: str = _WORKER_MODULE

    def __post_init__(self) -> None:
        if not self.deadline_sec > 0:
            raise ValueError(f"deadline_sec must be more than 0. Received: {self.deadline_sec}")

    @functools.cached_property
    def layout(self) -> PixelLayout:
        """Where the squares and their views lie in the pixels of an image."""
        return PixelLayout(sizes=(self.size, *self.further_sizes), views=1 if self.views is None else self.views.count)

    def __call__(self, data: bytes, image_sha256: bytes = b"") -> np.ndarray:
        """Decodes an encoded image.

        Args:
          data: the bytes of one image file, of any content at all.
          image_sha256: the SHA-256 of `data`, 32 bytes, which decides the further views. Without views it is not used.

        Returns:
          uint8 [size, size, 3]: rows from the top, columns from the left, RGB. With views [views, size, size, 3]. With
          further sizes all squares in one flat array, as `layout` says.

        Raises:
          ImageError: with the reasons of `decode_image`; or "decoder_crashed" if the process ended through its own
            fault; "deadline" if decoding took longer than `deadline_sec` twice; "out_of_memory" if it needed more
            memory than `preprocess.images.decode_worker` allows.
          MachineFault: the decoder process does not start, or another process has stopped or ended it.
          RuntimeError: `decode_squares` has a bug.
        """
        squares = [
            Square(size, () if self.views is None else self.views.distortions(image_sha256, size=size))
            for size in self.layout.sizes
        ]
        try:
            return self._decode(data, squares)
        except _ChildEnded as ended:
            # The image gets a second attempt if the child was late, because the machine may be busy, or if the child
            # ended before it received the request.
            if ended.had_request and not ended.late:
                raise self._verdict(ended) from None
        except _NoAnswer:
            pass  # An earlier image may have taken the child over, so this image gets a second attempt.
        try:
            return self._decode(data, squares)
        except _ChildEnded as ended:
            raise self._verdict(ended) from None
        except _NoAnswer:
            raise ImageError("decoder_crashed", "the decoder gave an answer that is none") from None

    def _decode(self, data: bytes, squares: Sequence[Square]) -> np.ndarray:
        child = _child_of_thread.get(self._module)
        try:
            status, reply = child.ask(
                data,
                squares,
                max_pixels=self.max_pixels,
                shape=self.layout.shape,
                deadline_sec=self.deadline_sec,
            )
            if isinstance(reply, np.ndarray):
                return reply
            reason, _, message = reply.decode("utf-8", "backslashreplace").partition("\0")
            if status == IMAGE_ERROR and reason not in _REASONS:
                raise _NoAnswer
        except BaseException:
            # The child is dropped also if this thread was interrupted in the middle of a reply.
            _child_of_thread.drop()
            raise
        if status == IMAGE_ERROR:
            raise ImageError(reason, message)  # type: ignore[arg-type]
        raise RuntimeError(f"{reason}: {message}")

    def _verdict(self, ended: _ChildEnded) -> ImageError | MachineFault:
        if ended.late and ended.was_stopped:
            return MachineFault(f"the decoder process was stopped for longer than {self.deadline_sec:g} s")
        if ended.late:
            return ImageError("deadline", f"decoding took longer than {self.deadline_sec:g} s")
        if not ended.had_request or (ended.returncode < 0 and -ended.returncode not in _OWN_SIGNALS):
            return MachineFault(f"somebody ended the decoder with {_ending(ended.returncode)} (is memory short?)")
        return ImageError("decoder_crashed", f"the decoder ended with {_ending(ended.returncode)}")
