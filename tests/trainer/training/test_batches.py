from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.support.embedded_clusters import clusters, in_views, small_options
from trainer.training.batches import aligned_empty, batches, tensor_of
from trainer.training.distributed import ALONE, Cluster


def steps_of(train, options, *, first_step: int = 0, cluster: Cluster = ALONE) -> list[np.ndarray]:
    """The embeddings of each step: [batch, size]."""
    return [step for group, _ in batches(train, options, first_step, cluster) for step in group.numpy()]


def test_workers_share_the_batches_of_one_that_is_alone_with_the_same_views():
    train, options = in_views(clusters(40, 0)), small_options(max_steps=12, batch_size=10)
    alone = steps_of(train, options)
    shares = [steps_of(train, options, cluster=Cluster(count=2, index=index)) for index in range(2)]
    for step, both in zip(alone, zip(*shares, strict=True), strict=True):
        np.testing.assert_array_equal(step, np.concatenate(both))


@pytest.mark.parametrize("batch_size", [10, 17])
def test_a_run_that_goes_on_draws_the_views_that_it_would_have_drawn(batch_size):
    train = in_views(clusters(40, 0))
    options = small_options(max_steps=30, batch_size=batch_size, eval_every_steps=5)
    np.testing.assert_array_equal(steps_of(train, options)[20:], steps_of(train, options, first_step=20))


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
