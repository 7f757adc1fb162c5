"""The comparison of two engines: in turns, on few images, and no longer than it takes to be clear."""

import concurrent.futures
import types

import numpy as np
import pytest

from preprocess.engines import fidelity
from preprocess.engines.fidelity import compare


class Engine:
    """Takes the seconds for a batch that a list says, of a clock that only it moves."""

    batch_size = 8

    def __init__(self, clock, seconds, factor=1.0, device="cpu"):
        self.info = types.SimpleNamespace(device=device)
        self.clock, self.seconds, self.factor, self.batches = clock, iter(seconds), factor, []

    def start(self, pixels):
        self.clock[0] += next(self.seconds)
        self.batches.append(len(pixels))
        future = concurrent.futures.Future()
        future.set_result(pixels.reshape(len(pixels), -1)[:, :5].astype(np.float32) ** self.factor)
        return future


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(fidelity.time, "perf_counter", lambda: now[0])
    return now


def images(count):
    return np.random.RandomState(0).randint(0, 256, (count, 4, 4, 3)).astype(np.uint8)


def far_from_one(speedup):
    return not 0.9 < speedup < 1.2


def test_each_image_is_compared_and_two_clear_turns_suffice(clock):
    # Batches of 3: two warm up, and two are timed in each turn.
    candidate, reference = Engine(clock, [9] * 2 + [1] * 4, 1.01), Engine(clock, [9] * 2 + [2] * 4)
    found = compare(candidate, reference, images(12), is_clear=far_from_one)
    assert found.speedup == 2
    assert found.cosines.shape == (12,)
    assert 0.9 < found.cosines.min() < found.cosines.max() < 1
    assert candidate.batches == reference.batches == [3] * 6


def test_what_is_not_clear_is_timed_four_times_and_the_best_turn_counts(clock):
    candidate, reference = Engine(clock, [1] * 10), Engine(clock, [1] * 2 + [3, 3] + [1.1, 1.1, 1, 1.1, 4, 4])
    found = compare(candidate, reference, images(12), is_clear=far_from_one)
    assert found.speedup == pytest.approx(1.05)
    assert len(candidate.batches) == len(reference.batches) == 10


def test_a_speedup_that_decides_nothing_is_timed_once(clock):
    candidate, reference = Engine(clock, [1] * 99), Engine(clock, [3] * 99)
    found = compare(candidate, reference, images(64))
    assert found.speedup == 3
    assert sum(candidate.batches) == sum(reference.batches) == len(found.cosines) == 64


def test_a_gpu_gets_all_images_at_once(clock):
    candidate, reference = (Engine(clock, [second] * 5, device="gpu") for second in (1, 2))
    candidate.batch_size = reference.batch_size = 12
    found = compare(candidate, reference, images(12), is_clear=far_from_one)
    assert found.speedup == 2
    assert candidate.batches == reference.batches == [12] * 3
    np.testing.assert_allclose(found.cosines, 1)


def test_two_images_can_be_compared(clock):
    engines = [Engine(clock, [1] * 9) for _ in range(2)]
    assert compare(*engines, images(2)).cosines.shape == (2,)
