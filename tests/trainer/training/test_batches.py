from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.support.embedded_clusters import clusters, in_views, small_options
from trainer.training.batches import aligned_empty, batches, tensor_of
from trainer.training.distributed import ALONE, Cluster
from trainer.training.inputs import TrainingInputs

RAW = TrainingInputs(mean_and_variance=None, dropout=0, seed=0)


def steps_of(train, options, *, first_step: int = 0, cluster: Cluster = ALONE, inputs=RAW) -> list[np.ndarray]:
    """The inputs of each step: [batch, size]."""
    return [step for group, _ in batches(train, options, first_step, cluster, inputs) for step in group.numpy()]


def test_workers_share_the_batches_of_one_that_is_alone_with_the_same_views():
    train, options = in_views(clusters(40, 0)), small_options(max_steps=12, batch_size=10)
    alone = steps_of(train, options)
    shares = [steps_of(train, options, cluster=Cluster(count=2, index=index)) for index in range(2)]
    for step, both in zip(alone, zip(*shares, strict=True), strict=True):
        np.testing.assert_array_equal(step, np.concatenate(both))


@pytest.mark.parametrize("batch_size", [10, 17])
def test_a_run_that_goes_on_draws_the_views_and_drops_the_numbers_that_it_would_have(batch_size):
    train = in_views(clusters(40, 0))
    options = small_options(max_steps=30, batch_size=batch_size, eval_every_steps=5)
    inputs = TrainingInputs(
        mean_and_variance=(np.ones(32, np.float32), np.full(32, 4, np.float32)), dropout=0.5, seed=0
    )
    whole = steps_of(train, options, inputs=inputs)
    np.testing.assert_array_equal(whole[20:], steps_of(train, options, first_step=20, inputs=inputs))


def test_each_worker_drops_numbers_of_its_own():
    train, options = clusters(40, 0), small_options(max_steps=2, batch_size=40)
    inputs = TrainingInputs(mean_and_variance=None, dropout=0.5, seed=0)
    alone, *shares = (
        np.array(steps_of(train, options, cluster=cluster, inputs=inputs)) == 0
        for cluster in (ALONE, Cluster(count=2, index=0), Cluster(count=2, index=1))
    )
    assert shares[0].shape == shares[1].shape == (2, 20, 32)
    assert not (shares[0] == shares[1]).all()
    assert alone.mean() == pytest.approx(0.5, abs=0.05)


def test_the_seed_decides_the_views():
    train = in_views(clusters(20, 0))
    first = [steps_of(train, small_options(max_steps=1, batch_size=20, seed=seed))[0] for seed in (0, 0, 1)]
    assert (first[0] == first[1]).all()
    assert not (np.sort(first[0], axis=0) == np.sort(first[2], axis=0)).all()
    # Not all of them are undistorted.
    assert not (np.sort(first[0], axis=0) == np.sort(train.embeddings.array, axis=0)).all()


def test_a_step_group_becomes_a_tensor_without_a_copy():
    for rows, columns in ((1, 1), (3, 5), (200, 2048)):
        array = aligned_empty(rows, columns)
        assert array.ctypes.data % 64 == 0
        array[:] = np.arange(rows * columns).reshape(rows, columns)
        tensor = tensor_of(array.reshape(rows, 1, columns))
        np.testing.assert_array_equal(tensor.numpy()[:, 0], array)
        array[-1, -1] = -7
        assert float(tensor[-1, 0, -1]) == -7
        del array
        gc.collect()
        assert float(tensor[-1, 0, -1]) == -7  # The tensor holds the memory.
