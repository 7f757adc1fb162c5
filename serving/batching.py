"""Dynamic batching: images of different requests become one batch of the network, within a short delay."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from preprocess.engines.base import Engine
from serving.metrics import Metrics


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class NetworkOutput:
    """What the network and the head give for one image.

    Attributes:
      embedding: float32 [embedding_size].
      scores: float32 [num_labels].
    """

    embedding: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(eq=False, slots=True)
class _Waiting:
    pixels: np.ndarray
    since: float
    output: asyncio.Future[NetworkOutput]


class Batcher:
    """Collects images into batches, in the order in which they come. All calls are made in the thread of one loop.

    A batch starts when it is full, or when its first image has waited `max_delay_sec` and the engine is free. While the
    engine is busy, the next batch fills up. So a busy server has full batches, and an idle one a short delay.

    Args:
      engine: runs the network.
      scores_of: the head, embeddings float32 [n, embedding_size] to scores float32 [n, num_labels].
      max_batch: images a batch, at most; None for the engine's own size, which is also the limit.
      max_delay_sec: see above.
      metrics: counts batches.
    """

    def __init__(
        self,
        engine: Engine,
        scores_of: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch: int | None,
        max_delay_sec: float,
        metrics: Metrics,
    ):
        self.max_batch = min(max_batch or engine.batch_size, engine.batch_size)
        self._engine = engine
        self._scores_of = scores_of
        self._max_delay_sec = max_delay_sec
        self._metrics = metrics
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        # The network runs in threads of the engine; the head is short, and one thread is enough for it.
        self._head_thread = concurrent.futures.ThreadPoolExecutor(1, "head")

    async def run(self, pixels: np.ndarray) -> NetworkOutput:
        """Runs the network and the head on one image, uint8 [size, size, 3], as part of a batch."""
        output: asyncio.Future[NetworkOutput] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(pixels, time.monotonic(), output))
        self._start_batches()
        return await output

    async def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """The head alone: float32 [n, embedding_size] to float32 [n, num_labels], not finite if a sum overflows."""

        def quietly() -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):  # A request decides the numbers.
                return self._scores_of(embeddings)

        return await asyncio.get_running_loop().run_in_executor(self._head_thread, quietly)

    def _start_batches(self) -> None:
        while self._waiting and len(self._running) < self._free_slots():
            waits = self._max_delay_sec - (time.monotonic() - self._waiting[0].since)
            if len(self._waiting) < self.max_batch and waits > 0:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(waits, self._delay_is_over)
                return
            batch = [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]
            # Nobody waits any more for an image whose request was given up.
            batch = [image for image in batch if not image.output.done()]
            if batch:
                task = asyncio.get_running_loop().create_task(self._run_batch(batch))
                self._running.add(task)
                task.add_done_callback(self._batch_is_over)

    def _free_slots(self) -> int:
        """The batches that may run now. The last of the engine's only waits for another to end, so it must be full."""
        is_full = len(self._waiting) >= self.max_batch
        return self._engine.max_pending if is_full else max(1, self._engine.max_pending - 1)

    def _delay_is_over(self) -> None:
        self._timer = None
        self._start_batches()

    def _batch_is_over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start_batches()

    async def _run_batch(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        for image in batch:
            self._metrics.stage("wait", started - image.since)
        try:
            pixels = np.stack([image.pixels for image in batch])
            embeddings = await asyncio.wrap_future(self._engine.start(pixels))
            scores = await self.scores(embeddings)
        except Exception as error:
            for image in batch:
                if not image.output.done():
                    image.output.set_exception(error)
            return
        self._metrics.batch(len(batch), time.monotonic() - started)
        for image, embedding, row in zip(batch, embeddings, scores, strict=True):
            if not image.output.done():
                image.output.set_result(NetworkOutput(embedding, row))
