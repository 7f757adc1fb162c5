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
      metrics: notes the times.
    """

    def __init__(self, *, size: int, max_pixels: int, deadline_sec: float, metrics: Metrics):
        self._decode = IsolatedDecoder(max_pixels=max_pixels, deadline_sec=deadline_sec, size=size)
        self._metrics = metrics

    async def decode(self, data: bytes) -> np.ndarray:
        """Decodes the bytes of an image file, of any content at all.

        Returns:
          uint8 [size, size, 3].

        Raises:
          ImageError: the bytes are no usable image.
          MachineFault: this machine cannot decode now.
        """
        loop = asyncio.get_running_loop()
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
                result = self._decode(data)
            except (ImageError, MachineFault, RuntimeError) as error:
                result = error
            self._metrics.stage("decode", time.monotonic() - started)
            with contextlib.suppress(RuntimeError):  # The loop was closed: the server has ended.
                loop.call_soon_threadsafe(settle, result)

        _threads().submit(task)
        return await pixels
