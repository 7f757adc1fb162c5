"""What the pipeline embeds and what the exported model sees are the same, on files of many kinds."""

import os

import numpy as np
import pytest
import tensorflow as tf

from pipelines import embed
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.images.decode import decode_image, encode_png
from preprocess.records.example import feature_spec
from preprocess.records.record_set import Manifest
from tests.support.image_corpus import corpus
from trainer.export.saved_model import load_backbone_of_records, save_model
from trainer.training.head import build_head

LABELS = ("a", "b")
# A frozen graph with ImageNet weights, outside of this repository.
GRAPH = "../shared/models/mobilenet_v1_0.25_128/frozen_graph.pb"


@pytest.fixture(scope="module")
def samples():
    """Every fourth image of the corpus that TensorFlow reads: all formats, modes, orientations and sizes."""
    chosen = [sample for sample in corpus() if sample.in_graph][::4]
    assert len(chosen) >= 30
    return chosen


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel with the whole workflow in it, loaded again; and its backbone's identity."""
    backbone, identity = load_keras_backbone(BackboneSpec(weights="random"))
    head = build_head(embedding_size=2048, num_classes=2, hidden_units=8, seed=0, mean_and_variance=None)
    folder = str(tmp_path_factory.mktemp("model") / "model")
    save_model(folder, backbone=backbone, head=head, labels=LABELS, identity=identity)
    return tf.saved_model.load(folder), identity


@pytest.fixture(scope="module")
def from_files(samples, exported):
    """What the exported model makes of the files."""
    model, _ = exported
    return model.signatures["embed_images"](image_bytes=tf.constant([sample.data for sample in samples]))["embeddings"]


def embed_with_pipeline(samples, folder, *flags, backbone=("--weights", "random"), size=2048):
    """Manifest of the set that the pipeline writes of the files, and its embeddings in order."""
    for number, sample in enumerate(samples):
        (folder / f"{number}.bin").write_bytes(sample.data)
    (folder / "list.csv").write_text("".join(f"{n}.bin,{LABELS[n % 2]}\n" for n in range(len(samples))))
    (folder / "dict.txt").write_text("".join(f"{label}\n" for label in LABELS))
    paths = ["--input_path", folder / "list.csv", "--input_dict", folder / "dict.txt", "--output_path", folder / "set"]
    assert embed.main([*map(str, paths), *backbone, *flags]) == 0
    manifest = Manifest.from_bytes((folder / "_set/manifest.json").read_bytes(), where="m")
    raw = tf.data.TFRecordDataset([str(folder / shard.name) for shard in manifest.shards])
    records = [tf.io.parse_single_example(record, feature_spec(size)) for record in raw]
    assert [record["image_uri"].numpy().decode() for record in records] == [f"{n}.bin" for n in range(len(samples))]
    return manifest, np.stack([record["embedding"] for record in records])


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_the_exported_model_embeds_files_as_the_pipeline_does(engine, samples, exported, from_files, tmp_path):
    if engine == "openvino":
        pytest.importorskip("openvino")
        samples, from_files = samples[::2], from_files[::2]  # What is decoded is the same for all engines.
    manifest, embeddings = embed_with_pipeline(samples, tmp_path, "--engine", engine, "--precision", "float32")
    model, identity = exported
    assert manifest.backbone == identity
    found = from_files.numpy()
    assert cosines(found, embeddings).min() >= 0.9999
    # A constant offset flatters the plain cosine.
    assert cosines(found - found.mean(axis=0), embeddings - found.mean(axis=0)).min() >= 0.9999
    np.testing.assert_allclose(found, embeddings, rtol=1e-3, atol=1e-3 * np.abs(embeddings).max())
    scores = model.signatures["embeddings"](embeddings=tf.constant(embeddings))["scores"]
    some = samples[::4]
    answers = model.signatures["serving_default"](
        key=tf.constant([sample.name for sample in some]),
        image_bytes=tf.constant([sample.data for sample in some]),
    )
    np.testing.assert_allclose(answers["scores"], scores[::4], atol=1e-3)
    assert [key.decode() for key in answers["key"].numpy()] == [sample.name for sample in some]


def test_the_precision_that_is_chosen_by_itself_holds_its_floor(samples, from_files, tmp_path):
    _, embeddings = embed_with_pipeline(samples, tmp_path)
    found = from_files.numpy()
    assert cosines(found - found.mean(axis=0), embeddings - found.mean(axis=0)).min() >= 0.99


def test_the_client_s_png_is_the_file(samples, exported, from_files):
    model, _ = exported
    images = tf.constant([encode_png(decode_image(sample.data)) for sample in samples[::2]])
    found = model.signatures["embed_images"](image_bytes=images)["embeddings"]
    np.testing.assert_allclose(found, from_files[::2], rtol=1e-4, atol=1e-4 * np.abs(from_files).max())


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(("mobilenet_0.25_128", "--weights", "random"), id="MobileNet"),
        pytest.param(("efficientnet_lite0",), id="EfficientNet-Lite"),
        pytest.param(
            (GRAPH,), id="frozen graph", marks=pytest.mark.skipif(not os.path.exists(GRAPH), reason="it is not here")
        ),
    ],
)
def test_a_backbone_of_another_size_and_scaling(backbone, samples, tmp_path):
    samples = samples[::3]
    flags = ("--backbone", *backbone)
    size = {"mobilenet_0.25_128": 256, "efficientnet_lite0": 1280, GRAPH: 256}[backbone[0]]
    manifest, embeddings = embed_with_pipeline(samples, tmp_path, "--precision", "float32", backbone=flags, size=size)
    # As the trainer does: the network that the manifest names.
    model = load_backbone_of_records(manifest.backbone, weights=None)
    head = build_head(embedding_size=size, num_classes=2, hidden_units=0, seed=0, mean_and_variance=None)
    info = save_model(str(tmp_path / "model"), backbone=model, head=head, labels=LABELS, identity=manifest.backbone)
    exported = tf.saved_model.load(str(tmp_path / "model")).signatures["embed_images"]
    found = exported(image_bytes=tf.constant([sample.data for sample in samples]))["embeddings"].numpy()
    assert cosines(found - found.mean(axis=0), embeddings - found.mean(axis=0)).min() >= 0.9999
    # And what a client sends.
    pngs = [encode_png(decode_image(sample.data, size=info.image.size)) for sample in samples]
    sent = exported(image_bytes=tf.constant(pngs))["embeddings"].numpy()
    np.testing.assert_allclose(sent, found, rtol=1e-4, atol=1e-4 * np.abs(found).max())
