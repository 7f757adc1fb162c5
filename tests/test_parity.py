"""What the pipeline embeds and what the exported model sees are the same, on files of many kinds."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines import embed
from preprocess.example import feature_spec
from preprocess.image import decode_image, encode_png
from preprocess.record_set import Manifest
from tests.preprocess.image_corpus import corpus
from trainer.export import load_backbone_of_records, save_model
from trainer.head import build_head, standardization


@pytest.fixture(scope="module")
def samples():
    """Every third image of the corpus that TensorFlow reads: all formats, modes, orientations and sizes."""
    readable = [sample for sample in corpus() if sample.in_graph]
    chosen = readable[::3]
    assert len(chosen) >= 30
    return chosen


@pytest.fixture(scope="module")
def embedded(samples, tmp_path_factory):
    """What the pipeline wrote of them: manifest, and embeddings by URI."""
    folder = tmp_path_factory.mktemp("parity")
    lines = []
    for number, sample in enumerate(samples):
        (folder / f"{number}.bin").write_bytes(sample.data)
        lines.append(f"{number}.bin,{'ab'[number % 2]}\n")
    (folder / "list.csv").write_text("".join(lines))
    (folder / "dict.txt").write_text("a\nb\n")
    flags = ["--input_path", folder / "list.csv", "--input_dict", folder / "dict.txt", "--output_path", folder / "set"]
    assert embed.main([*map(str, flags), "--weights", "random"]) == 0
    manifest = Manifest.from_bytes((folder / "_set/manifest.json").read_bytes(), where="m")
    records = {}
    for raw in tf.data.TFRecordDataset([str(folder / shard.name) for shard in manifest.shards]):
        record = tf.io.parse_single_example(raw, feature_spec(2048))
        records[record["image_uri"].numpy().decode()] = record["embedding"].numpy()
    return manifest, [records[f"{number}.bin"] for number in range(len(samples))]


@pytest.fixture(scope="module")
def exported(embedded, tmp_path_factory):
    manifest, embeddings = embedded
    head = build_head(
        embedding_size=2048,
        num_classes=2,
        hidden_units=8,
        dropout=0.5,
        seed=0,
        mean_and_variance=standardization(np.stack(embeddings)),
    )
    folder = str(tmp_path_factory.mktemp("model") / "model")
    backbone = load_backbone_of_records(manifest.backbone, weights=None)
    save_model(folder, backbone=backbone, head=head, labels=("a", "b"), identity=manifest.backbone)
    return tf.saved_model.load(folder)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_exported_model_embeds_files_as_the_pipeline_did(samples, embedded, exported):
    _, embeddings = embedded
    for sample, expected in zip(samples, embeddings, strict=True):
        for data in (sample.data, encode_png(decode_image(sample.data))):
            found = exported.signatures["embed_images"](image_bytes=tf.constant([data]))["embeddings"][0].numpy()
            assert cosine(found, expected) >= 0.9999, sample.name
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_scores_from_files_are_scores_from_records(samples, embedded, exported):
    _, embeddings = embedded
    data = [sample.data for sample in samples]
    keys = [sample.name for sample in samples]
    from_files = exported.signatures["serving_default"](key=tf.constant(keys), image_bytes=tf.constant(data))
    from_records = exported.signatures["embeddings"](embeddings=tf.constant(np.stack(embeddings)))
    np.testing.assert_allclose(from_files["scores"], from_records["scores"], atol=1e-3)
    assert [key.decode() for key in from_files["key"].numpy()] == keys
