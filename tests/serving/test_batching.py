from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest

from tests.support.stand_ins import StandInEngine

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from serving.batching import Batcher
from serving.metrics import Metrics


class HeldEngine(StandInEngine):
    """Runs batches only after `release`."""

    def __init__(self):
        super().__init__(max_pending=1)
        self.release = threading.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def start(self, pixels):
        return self._thread.submit(lambda: self.release.wait(20) and self.embed(pixels))


def image(value):
    return np.full((2, 2, 3), value, np.uint8)


def batcher_of(engine, *, delay=0.0, max_batch=None, head=lambda embeddings: embeddings * 2):
    return Batcher(engine, head, max_batch=max_batch, max_delay_sec=delay, metrics=Metrics())


def test_each_image_gets_its_own_output():
    engine = StandInEngine()

    async def run():
        batcher = batcher_of(engine, delay=0.01)
        return await asyncio.gather(*(batcher.run(image(value)) for value in range(10)))

    outputs = asyncio.run(run())
    assert [output.embedding[0] for output in outputs] == list(range(10))
    assert [output.scores[0] for output in outputs] == [2 * value for value in range(10)]
    assert sum(engine.batches) == 10 and max(engine.batches) == engine.batch_size


def test_a_busy_engine_gets_full_batches():
    engine = HeldEngine()

    async def run():
        batcher = batcher_of(engine)
        first = asyncio.ensure_future(batcher.run(image(0)))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(batcher.run(image(value))) for value in range(1, 9)]
        await asyncio.sleep(0)
        engine.release.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert engine.batches == [1, 4, 4]


def test_the_first_image_waits_for_the_delay_and_no_longer():
    engine = StandInEngine()

    async def run():
        batcher = batcher_of(engine, delay=30)
        waiting = [asyncio.ensure_future(batcher.run(image(value))) for value in range(3)]
        await asyncio.sleep(0.05)
        assert not engine.batches
        await batcher.run(image(3))  # It fills the batch.
        await asyncio.gather(*waiting)
        await batcher_of(engine, delay=0.001).run(image(0))

    asyncio.run(run())
    assert engine.batches == [4, 1]


def test_a_smaller_batch_is_asked_for():
    engine = StandInEngine()

    async def run():
        batcher = batcher_of(engine, delay=30, max_batch=2)
        await asyncio.gather(*(batcher.run(image(value)) for value in range(6)))

    asyncio.run(run())
    assert engine.batches == [2, 2, 2]


def test_an_image_that_was_given_up_is_not_embedded():
    engine = StandInEngine()

    async def run():
        batcher = batcher_of(engine, delay=0.05)
        given_up = asyncio.ensure_future(batcher.run(image(1)))
        kept = asyncio.ensure_future(batcher.run(image(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        await kept

    asyncio.run(run())
    assert engine.batches == [1]


def test_a_fault_of_a_batch_reaches_its_images_and_no_others():
    def head(embeddings):
        if embeddings[0, 0] == 7:
            raise ZeroDivisionError
        return embeddings

    async def run():
        batcher = batcher_of(StandInEngine(), head=head, max_batch=1)
        return await asyncio.gather(batcher.run(image(7)), batcher.run(image(8)), return_exceptions=True)

    bad, good = asyncio.run(run())
    assert isinstance(bad, ZeroDivisionError)
    assert good.embedding[0] == 8
