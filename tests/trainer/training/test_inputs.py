from __future__ import annotations

import keras
import numpy as np
import pytest

from trainer.training.inputs import TrainingInputs

_EMBEDDINGS = np.random.default_rng(0).normal(2, 3, (200, 1001)).astype(np.float32)


def prepared(inputs: TrainingInputs, embeddings: np.ndarray = _EMBEDDINGS, **which) -> np.ndarray:
    copy = embeddings.copy()
    inputs.prepare(copy, **{"step": 0, **which})
    return copy


def only_dropout(rate: float, seed: int = 3) -> TrainingInputs:
    return TrainingInputs(mean_and_variance=None, dropout=rate, seed=seed)


@pytest.mark.parametrize(("rate", "dropped"), [(0.5, 128), (0.3, 77), (0.999, 255), (0.002, 1)])
def test_dropout_drops_its_share_and_keeps_the_mean(rate, dropped):
    ones = prepared(only_dropout(rate), np.ones_like(_EMBEDDINGS))
    assert (ones == 0).mean() == pytest.approx(dropped / 256, abs=0.005)
    assert np.unique(ones).tolist() == pytest.approx([0, 256 / (256 - dropped)])
    # No row, no column and no place within a word is dropped more often than others.
    for axis in (0, 1):
        kept = (ones != 0).mean(axis=axis)
        assert kept.std() == pytest.approx((ones != 0).std() / ones.shape[axis] ** 0.5, rel=0.2)


def test_the_seed_the_step_and_the_worker_decide_what_is_dropped():
    def dropped(seed: int, **which) -> np.ndarray:
        return prepared(only_dropout(0.5, seed), **which) == 0

    first = dropped(3, step=7)
    np.testing.assert_array_equal(first, dropped(3, step=7))
    for other in (dropped(4, step=7), dropped(3, step=8), dropped(3, step=7, worker=1)):
        # As independent as two fair coins: half of all places are equal.
        assert (first == other).mean() == pytest.approx(0.5, abs=0.005)


def test_embeddings_are_standardized_as_the_head_does_it_afterwards():
    mean, variance = _EMBEDDINGS.mean(axis=0), 100 * _EMBEDDINGS.var(axis=0)
    variance[5] = 0
    layer = keras.layers.Normalization(mean=mean, variance=variance)
    expected = keras.ops.convert_to_numpy(layer(_EMBEDDINGS))
    plain = prepared(TrainingInputs(mean_and_variance=(mean, variance), dropout=0, seed=0))
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    half = prepared(TrainingInputs(mean_and_variance=(mean, variance), dropout=0.5, seed=0))
    np.testing.assert_allclose(half, np.where(half != 0, 2 * expected, 0), rtol=1e-5)
    assert (half == 0).mean() == pytest.approx(0.5, abs=0.005)
    assert half.dtype == np.float32


def test_without_both_nothing_changes():
    np.testing.assert_array_equal(prepared(only_dropout(0)), _EMBEDDINGS)
    np.testing.assert_array_equal(prepared(only_dropout(0.001)), _EMBEDDINGS)  # Less than 1/512.


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 8)])
def test_batches_of_any_shape(shape):
    values = prepared(only_dropout(0.5), np.ones(shape, np.float32))
    assert values.shape == shape
    assert set(np.unique(values)) <= {0, 2}
