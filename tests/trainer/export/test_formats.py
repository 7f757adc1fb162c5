from __future__ import annotations

import dataclasses
import json
import os
import sys
import zipfile

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from configs.errors import InputError
from preprocess.images.decode import decode_image
from tests.support.classifiers import IDENTITY, LABELS, build_classifier, jpeg
from trainer.evaluation.scores import scores_of
from trainer.export import formats
from trainer.export.formats import export_all, require_formats
from trainer.export.parity import image_samples, largest_difference
from trainer.export.pixel_classifier import PixelClassifier
from trainer.export.saved_model import save_model
from trainer.training.head import build_head, predict_logits

ALL_FORMATS = ("savedmodel", "litert", "onnx")


@pytest.fixture(scope="module")
def parts():
    return build_classifier()


@pytest.fixture(scope="module")
def photos():
    """A JPEG, one that is decoded at half scale, a PNG, a TIFF, and a file that is no image."""
    files = {
        "a.jpg": jpeg(0),
        "large.jpg": jpeg(1, (900, 800)),
        "c.png": jpeg(2, format="PNG", quality=None),
        "d.tiff": jpeg(3, format="TIFF", quality=None),
        "e.jpg": b"no image",
    }
    return list(files.items())


@pytest.fixture(scope="module")
def exported(parts, photos, tmp_path_factory):
    """A model in every format: its folder, what lies beside it, and the results."""
    backbone, head = parts
    folder = str(tmp_path_factory.mktemp("export") / "model")
    saved = {"backbone": backbone, "head": head}
    info = save_model(folder, labels=LABELS, identity=IDENTITY, temperature=0.7, threshold=0.6, **saved)
    results = export_all(ALL_FORMATS, model_dir=folder, output_dir=folder, photos=photos, info=info, **saved)
    return folder, info, results


@pytest.fixture
def of_embeddings(parts, tmp_path):
    """The arguments of `export_all` for a model without a backbone, which is quick."""
    model_dir = str(tmp_path / "model")
    saved = {"backbone": None, "head": parts[1]}
    info = save_model(model_dir, labels=LABELS, identity=IDENTITY, label_mode="multi", **saved)
    return {"model_dir": model_dir, "output_dir": str(tmp_path / "beside"), "photos": [], "info": info, **saved}


def test_every_format_answers_as_the_trainer_and_says_so(exported, photos):
    folder, info, results = exported
    assert {name: result["path"] for name, result in results.items()} == {
        "savedmodel": ".",
        "litert": "model.tflite",
        "onnx": "model.onnx",
    }
    for result in results.values():
        assert 0 <= result["largest_difference"] <= result["tolerance"] <= 1e-3
        assert (result["samples"], result["samples_are"]) == (4, "photos")
    assert results["onnx"]["bytes"] == os.path.getsize(os.path.join(folder, "model.onnx"))
    with open(os.path.join(folder, "parity.json")) as stream:
        certificate = json.load(stream)
    assert certificate["formats"] == results
    assert certificate["samples"] == [name for name, _ in photos[:4]]
    assert certificate["sent_as_png"] == 1  # TensorFlow does not read TIFF.
    assert certificate["head_digest"] == info.head_digest


def test_a_converted_model_takes_any_batch_and_gives_what_the_parts_give(exported, parts):
    folder, info, _ = exported
    backbone, head = parts
    pixels = np.stack([decode_image(jpeg(number)) for number in range(7)])
    embeddings = backbone(pixels.astype(np.float32) / 127.5 - 1, training=False).numpy()
    expected = scores_of(predict_logits(head, [embeddings]), "single", temperature=info.temperature)
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"))
    names = ("scores", "prediction", "confident")
    by_onnx = dict(zip(names, session.run(list(names), {"pixels": pixels}), strict=True))
    with pytest.warns(UserWarning, match="deprecated"):
        interpreter = tf.lite.Interpreter(os.path.join(folder, "model.tflite"))
    for found in (by_onnx, interpreter.get_signature_runner()(pixels=pixels)):
        np.testing.assert_allclose(found["scores"], expected, atol=1e-4)
        assert found["prediction"].tolist() == expected.argmax(axis=1).tolist()
        assert found["confident"].tolist() == (expected.max(axis=1) >= info.threshold).tolist()


def test_a_converted_model_says_what_it_is(exported):
    folder, info, _ = exported
    with zipfile.ZipFile(os.path.join(folder, "model.tflite")) as archive:
        assert archive.read("labels.txt").decode() == "rose\nGänseblümchen\ntulip\n"
        by_litert = json.loads(archive.read("model.json"))
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["labels"].split("\n") == list(LABELS)
    assert by_litert == json.loads(metadata["model.json"]) == {**info.to_json(), "input": "pixels"}


def test_without_photos_generated_images_are_compared_on():
    samples = image_samples([("text.jpg", b"no image")])
    assert samples.source == "generated images"
    assert len(samples) == len(samples.encoded) == len(samples.inputs) == 8
    assert samples.encoded == image_samples([]).encoded


def test_without_a_backbone_the_formats_take_embeddings(of_embeddings):
    results = export_all(ALL_FORMATS, **of_embeddings)
    assert {result["samples_are"] for result in results.values()} == {"generated embeddings"}
    assert results["savedmodel"]["path"] == "../model"
    session = onnxruntime.InferenceSession(os.path.join(of_embeddings["output_dir"], "model.onnx"))
    assert [(given.name, given.shape[1:]) for given in session.get_inputs()] == [("embeddings", [24])]


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_a_converted_model_that_answers_otherwise_is_refused_and_removed(of_embeddings, monkeypatch, name):
    kind = formats._CONVERTED[name]
    other = build_head(embedding_size=24, num_classes=3, hidden_units=8, seed=5, mean_and_variance=None)
    wrong = kind.convert(PixelClassifier(None, other, of_embeddings["info"]), of_embeddings["info"])
    replaced = dataclasses.replace(kind, convert=lambda classifier, info: wrong)
    monkeypatch.setitem(formats._CONVERTED, name, replaced)
    with pytest.raises(InputError, match=rf"^--export_formats: {name}: on 16 generated .* 0\.001 is allowed"):
        export_all((name,), **of_embeddings)
    assert os.path.exists(os.path.join(of_embeddings["model_dir"], "saved_model.pb"))
    assert os.listdir(of_embeddings["output_dir"]) == []


def test_a_savedmodel_that_answers_otherwise_is_refused_and_removed(of_embeddings):
    other = build_head(embedding_size=24, num_classes=3, hidden_units=8, seed=5, mean_and_variance=None)
    with pytest.raises(InputError, match="savedmodel: on 16 generated embeddings"):
        export_all(("savedmodel",), **{**of_embeddings, "head": other})
    assert not os.path.exists(of_embeddings["model_dir"])


def test_a_score_that_is_no_number_is_no_agreement():
    assert largest_difference(np.array([[0.5, np.nan]]), np.array([[0.5, 0.5]])) == float("inf")


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime"])
def test_a_converter_that_is_missing_is_named_before_training(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    require_formats(("savedmodel", "litert"))
    with pytest.raises(InputError, match=rf"{missing}.*pip install --editable .*\[export\]"):
        require_formats(ALL_FORMATS)


def test_a_backbone_of_another_size_scaling_and_activation(tmp_path):
    """As EfficientNetV2: swish, whose gradient cannot be saved, a normalization of its own, pixels from 0 to 255."""
    layers = keras.layers
    pixels = layers.Input((32, 32, 3))
    x = layers.Normalization(mean=[100, 120, 90], variance=[900, 400, 1600])(pixels)
    x = layers.Activation("silu")(layers.BatchNormalization()(layers.DepthwiseConv2D(3, use_bias=False)(x)))
    backbone = keras.Model(pixels, layers.GlobalAveragePooling2D()(x))
    head = build_head(embedding_size=3, num_classes=3, hidden_units=0, seed=0, mean_and_variance=None)
    identity = dataclasses.replace(IDENTITY, embedding_size=3, image_definition="upright-rgb-32-bilinear/2+none")
    model_dir = str(tmp_path / "model")
    info = save_model(model_dir, backbone=backbone, head=head, labels=LABELS, identity=identity)
    results = export_all(
        ["litert", "onnx"],
        model_dir=model_dir,
        output_dir=str(tmp_path),
        photos=[(f"{number}.jpg", jpeg(number)) for number in range(3)],
        head=head,
        backbone=backbone,
        info=info,
    )
    assert set(results) == {"savedmodel", "litert", "onnx"}
    assert all(result["largest_difference"] < 1e-4 for result in results.values())


def test_a_backbone_with_convolutions_in_groups_and_gelu(tmp_path):
    """As ConvNeXt: Keras has XLA compile such convolutions, and its GELU has an operation that tf2onnx lacks."""
    layers = keras.layers
    pixels = layers.Input((32, 32, 3))
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(8, 4, strides=4)(pixels))
    y = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(8, 7, padding="same", groups=8)(x))
    x = x + layers.Dense(8)(layers.Activation("gelu")(layers.Dense(32)(y)))
    backbone = keras.Model(pixels, layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x)))
    head = build_head(embedding_size=8, num_classes=3, hidden_units=0, seed=0, mean_and_variance=None)
    identity = dataclasses.replace(IDENTITY, embedding_size=8, image_definition="upright-rgb-32-bilinear/2+torch")
    model_dir = str(tmp_path / "model")
    info = save_model(model_dir, backbone=backbone, head=head, labels=LABELS, identity=identity)
    results = export_all(
        ["litert", "onnx"],
        model_dir=model_dir,
        output_dir=str(tmp_path),
        photos=[(f"{number}.jpg", jpeg(number)) for number in range(3)],
        head=head,
        backbone=backbone,
        info=info,
    )
    assert all(result["largest_difference"] < 1e-5 for result in results.values())
