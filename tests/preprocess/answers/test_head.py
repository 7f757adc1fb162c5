import numpy as np
import pytest

from configs.errors import InputError
from preprocess.answers.head import Dense, Head
from trainer.data.feature_statistics import FeatureStatistics
from trainer.training.head import build_head, standardization


def made(rows=700):
    return np.random.RandomState(0).normal(2, 3, (rows, 24)).astype(np.float32)


@pytest.mark.parametrize("label_mode", ["single", "multi"])
@pytest.mark.parametrize("hidden_units", [0, 16])
def test_it_gives_the_scores_of_the_exported_model(label_mode, hidden_units):
    import tensorflow as tf

    from tests.support.classifiers import IDENTITY
    from trainer.export.head_arrays import head_arrays
    from trainer.export.model_info import ModelInfo
    from trainer.export.prediction_ops import predictions

    embeddings = made()
    statistics = FeatureStatistics(24)
    statistics.update(embeddings)
    keras_head = build_head(
        embedding_size=24,
        num_classes=5,
        hidden_units=hidden_units,
        seed=1,
        mean_and_variance=standardization(statistics),
    )
    told = {"label_mode": label_mode, "temperature": 0.3, "threshold": 0.4}
    info = ModelInfo(labels=tuple("abcde"), backbone=IDENTITY, head_digest="sha256:0", **told)
    head = Head.from_bytes(head_arrays(keras_head, info).to_bytes(), where="head.npz")
    wanted = predictions(keras_head(tf.constant(embeddings), training=False), **told)
    np.testing.assert_allclose(head(embeddings), wanted["scores"].numpy(), atol=1e-6)
    assert (head.threshold, head.temperature) == (0.4, 0.3)


def test_the_same_head_has_the_same_bytes_and_any_other_has_others():
    def head(**changes):
        layers = (Dense(np.ones((3, 2), np.float32), np.zeros(2, np.float32)),)
        return Head(**{"layers": layers, "scores": "softmax", "temperature": 2.0, "threshold": 0.5, **changes})

    assert head().sha256 == head().sha256
    others = [{"scores": "sigmoid"}, {"temperature": 3.0}, {"threshold": 0.1}, {"mean": np.ones(3, np.float32)}]
    assert len({head(**changes).sha256 for changes in ({}, *others)}) == 5


def test_how_many_rows_there_are_does_not_change_the_scores_of_a_piece():
    random = np.random.RandomState(0)
    layers = (Dense(random.normal(0, 1, (24, 512)).astype(np.float32), np.zeros(512, np.float32), relu=True),)
    head = Head(layers=layers, scores="softmax")
    assert np.array_equal(head(made(1500))[:1024], head(made(1500)[:1024]))


def test_scores_far_from_zero_are_finite():
    extremes = np.array([[-1e4, 1e4]], np.float32)
    for scores in ("softmax", "sigmoid"):
        np.testing.assert_array_equal(Head(layers=(), scores=scores)(extremes), [[0, 1]])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04N."])
def test_any_other_file_is_one_line(data):
    with pytest.raises(InputError, match="head.npz: not the head of a classifier"):
        Head.from_bytes(data, where="head.npz")
