from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import InputError
from preprocess.backbone import BackboneSpec, load_keras_backbone
from preprocess.image import decode_image, encode_png
from preprocess.inference_graph import inference_graph
from preprocess.tensorflow_engine import TensorFlowEngine
from trainer.evaluation import log_softmax
from trainer.export import load_backbone_of_records, save_model
from trainer.head import build_head, predict_logits
from trainer.prediction import Classifier

LABELS = ("rose", "Gänseblümchen", "tulip")


def picture(seed: int, height: int = 64, width: int = 80) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return tf.io.encode_jpeg(np.kron(pixels, np.ones((8, 8, 1), np.uint8)), quality=95).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The whole Inception v3, with random weights, and a head of which no training is needed here."""
    spec = BackboneSpec(weights="random", seed=0)
    backbone, identity = load_keras_backbone(spec)
    embeddings = np.random.default_rng(0).normal(0.5, 0.2, (50, identity.embedding_size)).astype(np.float32)
    head = build_head(
        embedding_size=identity.embedding_size,
        num_classes=3,
        hidden_units=8,
        dropout=0.5,
        seed=0,
        mean_and_variance=(embeddings.mean(0), embeddings.var(0)),
    )
    model_dir = str(tmp_path_factory.mktemp("export") / "model")
    save_model(model_dir, backbone=backbone, head=head, labels=LABELS, identity=identity)
    return model_dir, head, backbone, identity


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported[0])


@pytest.fixture(scope="module")
def classifier(exported):
    return Classifier(exported[0])


def test_signatures_are_as_promised(loaded):
    serving = loaded.signatures["serving_default"]
    assert {
        name: (spec.dtype, spec.shape.as_list()) for name, spec in serving.structured_input_signature[1].items()
    } == {
        "key": (tf.string, [None]),
        "image_bytes": (tf.string, [None]),
    }
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in serving.structured_outputs.items()} == {
        "key": (tf.string, [None]),
        "prediction": (tf.int64, [None]),
        "label": (tf.string, [None]),
        "scores": (tf.float32, [None, 3]),
    }


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_graph_answers_as_its_parts_do(exported, loaded, batch_size):
    _, head, backbone, _ = exported
    model = loaded
    images = [picture(seed) for seed in range(batch_size)]
    answers = model.signatures["serving_default"](
        key=tf.constant([f"k{i}" for i in range(batch_size)]), image_bytes=tf.constant(images)
    )
    pixels = np.stack([decode_image(image) for image in images]).astype(np.float32)
    embeddings = backbone(pixels / 127.5 - 1.0, training=False).numpy()
    expected = np.exp(log_softmax(predict_logits(head, [embeddings])))
    np.testing.assert_allclose(answers["scores"], expected, atol=1e-4)
    assert answers["key"].numpy().tolist() == [f"k{i}".encode() for i in range(batch_size)]
    assert answers["prediction"].numpy().tolist() == expected.argmax(axis=1).tolist()
    assert [label.decode() for label in answers["label"].numpy()] == [LABELS[i] for i in expected.argmax(axis=1)]
    ready = model.signatures["embeddings"](embeddings=tf.constant(embeddings))
    np.testing.assert_allclose(ready["scores"], expected, atol=1e-5)


def test_a_client_s_png_gets_the_answer_of_the_photo(classifier):
    photo = picture(7, 400, 304)
    direct, sent = classifier.predict([photo, encode_png(decode_image(photo))])
    np.testing.assert_allclose(direct.scores, sent.scores, atol=1e-6)
    assert direct.label == sent.label


def test_the_pipeline_s_embedding_gets_the_answer_of_the_photo(exported, classifier):
    _, head, backbone, identity = exported
    photo = picture(8, 200, 600)
    engine = TensorFlowEngine(inference_graph(backbone), identity)
    embedding = engine.start(decode_image(photo)[np.newaxis]).result()
    expected = np.exp(log_softmax(predict_logits(head, [embedding])))[0]
    np.testing.assert_allclose(classifier.predict([photo])[0].scores, expected, atol=1e-4)


def test_the_backbone_of_the_records_is_found_or_refused(exported, monkeypatch):
    _, _, backbone, identity = exported
    monkeypatch.setattr("trainer.export.load_keras_backbone", lambda spec: (backbone, identity))
    assert load_backbone_of_records(identity, weights=None) is backbone
    moved = dataclasses.replace(identity, weights="/elsewhere/a.weights.h5", seed=None)
    assert load_backbone_of_records(moved, weights="/here/a.weights.h5") is backbone
    other = dataclasses.replace(identity, weights="imagenet", seed=None, weights_digest="sha256:00")
    with pytest.raises(InputError, match="inception_v3 with weights imagenet against"):
        load_backbone_of_records(other, weights=None)


def test_a_weights_file_that_is_gone_is_told_with_the_way_out(exported):
    gone = dataclasses.replace(exported[3], weights="/nowhere/a.weights.h5", seed=None)
    with pytest.raises(InputError, match=r"/nowhere/a\.weights\.h5.*pass --weights FILE"):
        load_backbone_of_records(gone, weights=None)
