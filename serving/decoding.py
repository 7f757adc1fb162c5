"""Decodes the images of requests in isolated processes, a process for each core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time

import numpy as np

from preprocess.images.decode import ImageError
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.machine.cores import available_cores
from preprocess.machine.machine_faults import MachineFault
from preprocess.machine.timed_threads import DaemonThreads
from serving.metrics import Metrics


class WaitedTooLongError(Exception):
    """An image did not get its turn in time, because those before it take long. Nothing is wrong with it."""


@functools.cache
def _threads() -> DaemonThreads:
    """The threads of this process that decode. Each has a child process of its own."""
    return DaemonThreads(available_cores(), "decode")


class ImageDecoder:
    """Decodes images for one event loop.

    Args:
      size: the side of the square that the network takes.
      max_pixels: the largest size that a header may declare.
      deadline_sec: seconds that decoding one image may take.
      max_wait_sec: an image that waits longer for its turn is given up. So a queue of images that each take as long as
        they may does not hold up the server for longer than that.
      metrics: notes the times.
    """

    def __init__(self, *, size: int, max_pixels: int, deadline_sec: float, max_wait_sec: float, metrics: Metrics):
        self._decode = IsolatedDecoder(max_pixels=max_pixels, deadline_sec=deadline_sec, size=size)
        self._max_wait_sec = max_wait_sec
        self._metrics = metrics

    async def decode(self, data: bytes) -> np.ndarray:
        """Decodes the bytes of an image file, of any content at all.

        Returns:
          uint8 [size, size, 3].

        Raises:
          ImageError: the bytes are no usable image.
          MachineFault: this machine cannot decode now.
          WaitedTooLongError: its turn did not come in time.
        """
        loop = asyncio.get_running_loop()
        submitted = time.monotonic()
        pixels: asyncio.Future[np.ndarray] = loop.create_future()

        def settle(result: np.ndarray | Exception) -> None:
            if pixels.done():  # The request was given up.
                return
            if isinstance(result, Exception):
                pixels.set_exception(result)
            else:
                pixels.set_result(result)

        def task() -> None:
            if pixels.done():
                return
            started = time.monotonic()
            result: np.ndarray | Exception
            try:
                if started - submitted > self._max_wait_sec:
                    raise WaitedTooLongError
                result = self._decode_twice(data)
            except (ImageError, MachineFault, RuntimeError, WaitedTooLongError) as error:
                result = error
            self._metrics.stage("decode", time.monotonic() - started)
            with contextlib.suppress(RuntimeError):  # The loop was closed: the server has ended.
                loop.call_soon_threadsafe(settle, result)

        _threads().submit(task)
        return await pixels

    def _decode_twice(self, data: bytes) -> np.ndarray:
        """A fault of the machine may be over at once, such as a process ended too late for the image before."""
        try:
            return self._decode(data)
        except MachineFault:
            return self._decode(data)
