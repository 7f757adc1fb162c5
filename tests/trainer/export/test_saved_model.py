from __future__ import annotations

import base64
import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import InputError
from preprocess.backbones.inference_graph import inference_graph
from preprocess.engines.tensorflow_engine import TensorFlowEngine
from preprocess.images.decode import decode_image, encode_png
from tests.support.classifiers import IDENTITY, LABELS, build_classifier, jpeg
from trainer.data.foreign_sets import unverified_identity
from trainer.evaluation.scores import scores_of
from trainer.export.classifier import Classifier, read_model_info
from trainer.export.saved_model import load_backbone_of_records, load_unverified_backbone, save_model
from trainer.training.head import predict_logits

TEMPERATURE = 0.7
THRESHOLD = 0.6


@pytest.fixture(scope="module")
def parts():
    return build_classifier()


@pytest.fixture(scope="module")
def classifier(parts, tmp_path_factory):
    backbone, head = parts
    model_dir = str(tmp_path_factory.mktemp("export") / "model")
    save_model(
        model_dir,
        backbone=backbone,
        head=head,
        labels=LABELS,
        identity=IDENTITY,
        temperature=TEMPERATURE,
        threshold=THRESHOLD,
    )
    return Classifier(model_dir)


@pytest.fixture(scope="module")
def loaded(classifier):
    return classifier._model  # Loading takes seconds.


def embed(backbone, images):
    pixels = np.stack([decode_image(image) for image in images]).astype(np.float32)
    return backbone(pixels / 127.5 - 1.0, training=False).numpy()


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
        "confident": (tf.bool, [None]),
        "error": (tf.string, [None]),
    }
    without_keys = loaded.signatures["images"]
    assert set(without_keys.structured_input_signature[1]) == {"image_bytes"}
    assert {*without_keys.structured_outputs, "key"} == set(serving.structured_outputs)
    assert set(loaded.signatures["embed_images"].structured_outputs) == {"embeddings", "error"}


def test_a_bad_image_has_an_outcome_of_its_own_and_the_others_keep_theirs_to_the_bit(loaded, classifier):
    good, bad = [jpeg(number) for number in range(4)], [b"", b"no image", jpeg(4)[:300], jpeg(5, format="TIFF")]
    serve = loaded.signatures["serving_default"]
    keys = tf.constant([str(number) for number in range(8)])
    mixed = [image for pair in zip(good, bad, strict=True) for image in pair]
    answers = serve(key=keys, image_bytes=tf.constant(mixed))
    # The same rows, with other good images in place of the bad ones.
    expected = serve(key=keys, image_bytes=tf.constant([image for one in good for image in (one, good[0])]))
    for name, tensor in answers.items():
        assert tensor.numpy()[::2].tolist() == expected[name].numpy()[::2].tolist()
    reasons = [error.decode().partition(":")[0] for error in answers["error"].numpy()]
    assert reasons[::2] == [""] * 4
    assert reasons[1::2] == ["empty_file", "unsupported_format", "corrupt", "unsupported_format"]
    assert answers["label"].numpy()[1::2].tolist() == [b""] * 4
    assert answers["prediction"].numpy()[1::2].tolist() == [-1] * 4
    assert not answers["confident"].numpy()[1::2].any()
    assert not answers["scores"].numpy()[1::2].any()
    assert answers["key"].numpy().tolist() == keys.numpy().tolist()
    without_keys = loaded.signatures["images"](image_bytes=tf.constant(mixed))
    for name, tensor in without_keys.items():
        assert tensor.numpy().tolist() == answers[name].numpy().tolist()
    embedded = loaded.signatures["embed_images"](image_bytes=tf.constant(mixed))
    assert embedded["error"].numpy().tolist() == answers["error"].numpy().tolist()
    assert embedded["embeddings"].numpy().any(axis=1).tolist() == [True, False] * 4
    predictions = classifier.predict(mixed)
    assert [prediction.error for prediction in predictions] == [error.decode() for error in answers["error"].numpy()]
    assert [prediction.label_id for prediction in predictions] == answers["prediction"].numpy().tolist()
    json.dumps([tensor.numpy().tolist() for tensor in (answers["scores"], answers["prediction"])], allow_nan=False)


def test_a_model_of_an_earlier_version_gives_each_image_an_outcome_too(classifier, monkeypatch):
    """Such a model has no output `error`, and a bad image fails its batch."""

    def fails(key, image_bytes):
        answers = signature(key=key, image_bytes=image_bytes)
        if any(answers.pop("error").numpy()):
            raise tf.errors.InvalidArgumentError(None, None, "Unknown image file format.\nat node x")
        return answers

    signature = classifier.signature
    monkeypatch.setattr(classifier, "signature", fails)
    found = classifier.predict([jpeg(0), b"no image", jpeg(1)])
    assert [prediction.error for prediction in found] == ["", "corrupt: Unknown image file format.", ""]
    assert found[1].label == ""
    assert found[0].label in LABELS


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_graph_answers_as_its_parts_do(parts, loaded, batch_size):
    backbone, head = parts
    images = [jpeg(number) for number in range(batch_size)]
    answers = loaded.signatures["serving_default"](
        key=tf.constant([f"k{i}" for i in range(batch_size)]), image_bytes=tf.constant(images)
    )
    embeddings = embed(backbone, images)
    expected = scores_of(predict_logits(head, [embeddings]), "single", temperature=TEMPERATURE)
    np.testing.assert_allclose(answers["scores"], expected, atol=1e-5)
    assert answers["key"].numpy().tolist() == [f"k{i}".encode() for i in range(batch_size)]
    assert answers["prediction"].numpy().tolist() == expected.argmax(axis=1).tolist()
    assert [label.decode() for label in answers["label"].numpy()] == [LABELS[i] for i in expected.argmax(axis=1)]
    assert answers["confident"].numpy().tolist() == (expected.max(axis=1) >= THRESHOLD).tolist()
    ready = loaded.signatures["embeddings"](embeddings=tf.constant(embeddings))
    np.testing.assert_allclose(ready["scores"], expected, atol=1e-5)


def test_some_answers_are_confident_and_some_are_not(classifier):
    found = classifier.predict([jpeg(number) for number in range(8)])
    assert {prediction.confident for prediction in found} == {True, False}
    assert all(prediction.confident == (prediction.scores.max() >= THRESHOLD) for prediction in found)


def test_the_instances_json_of_serving_is_understood(loaded, classifier):
    """What TensorFlow Serving does with the row format: a column of each input, base64 where an object says b64."""
    images = [jpeg(1), jpeg(2, format="PNG", quality=None)]
    body = json.dumps(
        {
            "instances": [
                {"key": f"photo-{i}", "image_bytes": {"b64": base64.b64encode(image).decode()}}
                for i, image in enumerate(images)
            ]
        }
    )
    rows = json.loads(body)["instances"]
    signature = loaded.signatures["serving_default"]
    inputs = {}
    for name, spec in signature.structured_input_signature[1].items():
        values = [row[name] for row in rows]
        decoded = [base64.b64decode(value["b64"]) if isinstance(value, dict) else value for value in values]
        inputs[name] = tf.constant(decoded, spec.dtype)
    outputs = {name: tensor.numpy().tolist() for name, tensor in signature(**inputs).items()}
    assert {name: len(values) for name, values in outputs.items()} == dict.fromkeys(outputs, len(rows))
    # Outputs named *_bytes would come back in base64; all others must be JSON as they are.
    assert not any(name.endswith("_bytes") for name in outputs)
    assert outputs["key"] == [b"photo-0", b"photo-1"]
    direct = classifier.predict(images)
    assert [label.decode() for label in outputs["label"]] == [prediction.label for prediction in direct]


def test_a_client_s_png_gets_the_answer_of_the_photo(classifier):
    photo = jpeg(7, (304, 400))
    direct, sent = classifier.predict([photo, encode_png(decode_image(photo))])
    np.testing.assert_allclose(direct.scores, sent.scores, atol=1e-6)
    assert direct.label == sent.label


def test_the_pipeline_s_embedding_gets_the_answer_of_the_photo(parts, classifier):
    backbone, head = parts
    photo = jpeg(3, (600, 200))
    engine = TensorFlowEngine(inference_graph(backbone), IDENTITY)
    embedding = engine.start(decode_image(photo)[np.newaxis]).result()
    expected = scores_of(predict_logits(head, [embedding]), "single", temperature=TEMPERATURE)[0]
    np.testing.assert_allclose(classifier.predict([photo])[0].scores, expected, atol=1e-4)


@pytest.mark.parametrize("label_mode", ["single", "multi"])
def test_the_head_alone_takes_embeddings(parts, tmp_path, label_mode):
    _, head = parts
    folder = str(tmp_path / "model")
    told = {"label_mode": label_mode, "temperature": TEMPERATURE, "threshold": THRESHOLD, "backbone_verified": False}
    info = save_model(folder, backbone=None, head=head, labels=LABELS, identity=IDENTITY, **told)
    assert read_model_info(folder) == info
    assert {name: getattr(info, name) for name in told} == told
    assert not info.takes_images
    model = tf.saved_model.load(folder)
    assert set(model.signatures) == {"serving_default", "embeddings"}
    embeddings = np.random.default_rng(0).uniform(0, 3, (20, 24)).astype(np.float32)
    answers = model.signatures["serving_default"](embeddings=tf.constant(embeddings))
    expected = scores_of(predict_logits(head, [embeddings]), label_mode, temperature=TEMPERATURE)
    np.testing.assert_allclose(answers["scores"], expected, atol=1e-6)
    assert answers["confident"].numpy().tolist() == (expected.max(axis=1) >= THRESHOLD).tolist()
    with pytest.raises(InputError, match="takes embeddings and no photos"):
        Classifier(folder)


def test_the_backbone_of_the_records_is_found_or_refused(parts, monkeypatch, mean_colour_identity):
    backbone, identity = parts[0], mean_colour_identity
    monkeypatch.setattr("trainer.export.saved_model.load_keras_backbone", lambda spec: (backbone, identity))
    assert load_backbone_of_records(identity, weights=None) is backbone
    moved = dataclasses.replace(identity, weights="/elsewhere/a.weights.h5", seed=None)
    assert load_backbone_of_records(moved, weights="/here/a.weights.h5") is backbone
    other = dataclasses.replace(identity, weights="imagenet", seed=None, weights_digest="sha256:00")
    with pytest.raises(InputError, match="inception_v3 with weights imagenet against"):
        load_backbone_of_records(other, weights=None)


def test_a_weights_file_that_is_gone_is_told_with_the_way_out(mean_colour_identity):
    gone = dataclasses.replace(mean_colour_identity, weights="/nowhere/a.weights.h5", seed=None)
    with pytest.raises(InputError, match=r"/nowhere/a\.weights\.h5.*pass --weights FILE"):
        load_backbone_of_records(gone, weights=None)


def test_a_network_taken_on_trust_must_fit_the_embeddings(parts, monkeypatch):
    monkeypatch.setattr("trainer.export.saved_model.load_keras_backbone", lambda spec: (parts[0], IDENTITY))
    assert load_unverified_backbone("imagenet", records=unverified_identity(24)) == (parts[0], IDENTITY)
    with pytest.raises(InputError, match="of 24 numbers, and those of the records have 2048"):
        load_unverified_backbone("imagenet", records=unverified_identity(2048))


GRAPH = os.path.join(os.path.dirname(__file__), *[os.pardir] * 4, "shared", "models", "mobilenet_v1_0.25_128")


@pytest.mark.skipif(not os.path.exists(GRAPH), reason="the shared frozen graph is not here")
def test_records_made_elsewhere_with_the_frozen_graph_that_made_them():
    records = dataclasses.replace(unverified_identity(256), architecture="mobilenet_0.25_128")
    model, identity = load_unverified_backbone(os.path.join(GRAPH, "frozen_graph.pb"), records=records)
    assert model.output_shape == (None, 256)
    assert (identity.architecture, identity.is_known) == ("frozen_graph", True)


def test_records_made_elsewhere_name_their_architecture(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "trainer.export.saved_model.load_keras_backbone", lambda spec: asked.append(spec) or (None, IDENTITY)
    )
    unnamed = unverified_identity(IDENTITY.embedding_size)
    for records in (unnamed, dataclasses.replace(unnamed, architecture="mobilenet_1.0_224")):
        load_unverified_backbone("imagenet", records=records)
    assert [spec.architecture for spec in asked] == ["inception_v3", "mobilenet_1.0_224"]
    unknown = dataclasses.replace(unnamed, architecture="https~tfhub.dev~google~x~1")
    with pytest.raises(InputError, match=r"name the network 'https~tfhub.dev~google~x~1'.*frozen graph"):
        load_unverified_backbone("imagenet", records=unknown)
