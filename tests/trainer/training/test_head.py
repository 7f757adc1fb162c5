from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.embeddings import MemoryEmbeddings
from trainer.training.head import STANDARDIZED_DEVIATION, FastDropout, build_head, predict_logits, standardization


def feature_statistics(embeddings):
    return MemoryEmbeddings(embeddings).feature_statistics()


def test_standardization_holds_over_pieces_and_a_big_common_mean():
    embeddings = (100 + 1e-3 * np.random.default_rng(0).normal(size=(9000, 4))).astype(np.float32)
    mean, variance = standardization(feature_statistics(embeddings))
    scaled = (embeddings - mean) / np.sqrt(variance)
    np.testing.assert_allclose(scaled.std(axis=0), STANDARDIZED_DEVIATION, rtol=1e-2)


def test_a_feature_that_never_varies_does_not_blow_up():
    mean, variance = standardization(feature_statistics(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)))
    assert (variance > 0).all()
    assert mean.tolist() == [2.0, 5.0]


def test_logits_do_not_depend_on_the_batch_and_dropout_is_off():
    head = build_head(embedding_size=4, num_classes=3, hidden_units=8, dropout=0.5, seed=0, mean_and_variance=None)
    embeddings = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    whole = predict_logits(head, [embeddings])
    np.testing.assert_allclose(predict_logits(head, [embeddings[:3], embeddings[3:]]), whole, rtol=1e-5)
    assert predict_logits(head, []).shape == (0, 3)


@pytest.mark.parametrize(("rate", "dropped"), [(0.5, 128), (0.3, 77), (0.999, 255)])
def test_dropout_drops_its_share_keeps_the_mean_and_never_repeats(rate, dropped):
    layer = FastDropout(rate, seed=3)
    ones = tf.ones((200, 1001))
    first, second = (layer(ones, training=True).numpy() for _ in range(2))
    assert (first == 0).mean() == pytest.approx(dropped / 256, abs=0.005)
    assert np.unique(first).tolist() == pytest.approx([0, 256 / (256 - dropped)])
    assert (first != second).any()
    np.testing.assert_array_equal(first, FastDropout(rate, seed=3)(ones, training=True))
    np.testing.assert_array_equal(layer(ones), ones)
