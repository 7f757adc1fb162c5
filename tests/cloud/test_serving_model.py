"""An exported model, run as TensorFlow Serving runs it: by a session, from the graph and the variables alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.classifiers import IDENTITY, LABELS, build_classifier, jpeg
from trainer.export.classifier import Classifier
from trainer.export.saved_model import save_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    backbone, head = build_classifier()
    folder = str(tmp_path_factory.mktemp("serving") / "model")
    save_model(folder, backbone=backbone, head=head, labels=LABELS, identity=IDENTITY)
    return folder


def test_a_session_answers_as_the_trainer_does(model_dir):
    import tensorflow as tf

    photos = [jpeg(number) for number in range(3)]
    expected = Classifier(model_dir).predict(photos)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], model_dir)
        signature = loaded.signature_def["serving_default"]
        outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
        inputs = {signature.inputs["key"].name: list("abcd"), signature.inputs["image_bytes"].name: [*photos, b"bad"]}
        answers = session.run(outputs, inputs)
        without_keys = loaded.signature_def["images"]
        of_images = session.run(
            {name: tensor.name for name, tensor in without_keys.outputs.items()},
            {without_keys.inputs["image_bytes"].name: photos},
        )
    assert [label.decode() for label in answers["label"]] == [*(one.label for one in expected), ""]
    assert list(answers["key"]) == [b"a", b"b", b"c", b"d"]
    assert [error.partition(b":")[0] for error in answers["error"]] == [b"", b"", b"", b"unsupported_format"]
    np.testing.assert_allclose(answers["scores"][:3], [one.scores for one in expected], atol=1e-6)
    np.testing.assert_allclose(of_images["scores"], [one.scores for one in expected], atol=1e-6)
