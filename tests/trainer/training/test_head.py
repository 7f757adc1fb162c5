from __future__ import annotations

import numpy as np

from trainer.data.embeddings import MemoryEmbeddings
from trainer.training.head import STANDARDIZED_DEVIATION, build_head, predict_logits, standardization


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


def test_logits_do_not_depend_on_the_batch():
    head = build_head(embedding_size=4, num_classes=3, hidden_units=8, seed=0, mean_and_variance=None)
    embeddings = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    whole = predict_logits(head, [embeddings])
    np.testing.assert_allclose(predict_logits(head, [embeddings[:3], embeddings[3:]]), whole, rtol=1e-5)
    assert predict_logits(head, []).shape == (0, 3)
