"""`--backbone PATH`: records of a network from a file, from the command line to the exported model."""

import json

import numpy as np
import pytest

from configs.errors import InputError
from pipelines import embed
from preprocess.images.decode import decode_image
from preprocess.records.record_set import Manifest

SIZE = 24


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A frozen graph whose embeddings are the mean colours of an image and of its upper left quarter."""
    import tensorflow as tf

    with tf.Graph().as_default() as made:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="pixels")
        quarter = pixels[:, : SIZE // 2, : SIZE // 2]
        means = [tf.reduce_mean(part, [1, 2]) for part in (pixels, quarter)]
        tf.identity(tf.concat(means, axis=1), name="means")
        tf.identity(means[0], name="colour")
    path = tmp_path_factory.mktemp("graph") / "means.pb"
    path.write_bytes(made.as_graph_def().SerializeToString())
    return path


@pytest.fixture
def run(photos, graph, tmp_path, monkeypatch, capsys):
    """Runs pipelines.embed with the graph; returns what it printed."""
    monkeypatch.setenv("HUGS_CACHE_DIR", str(tmp_path / "cache"))
    paths = [
        "--input_path",
        photos / "train.csv",
        "--input_dict",
        photos / "dict.txt",
        "--output_path",
        tmp_path / "set",
    ]
    fixed = [*map(str, paths), "--backbone", str(graph), "--engine", "tensorflow", "--precision", "float32"]

    def run_with(*flags):
        assert embed.main([*fixed, *flags]) == 0
        return capsys.readouterr().out

    return run_with


def records(folder):
    import tensorflow as tf

    from preprocess.records.example import feature_spec

    manifest = Manifest.from_bytes((folder / "_set/manifest.json").read_bytes(), where="m")
    raw = tf.data.TFRecordDataset([str(folder / shard.name) for shard in manifest.shards])
    parsed = [tf.io.parse_single_example(one, feature_spec(manifest.backbone.embedding_size)) for one in raw]
    return manifest, {one["image_uri"].numpy().decode(): one["embedding"].numpy() for one in parsed}


def test_records_have_the_pixels_that_the_file_wants(run, photos, graph, tmp_path):
    run("--output_tensor", "means", "--scaling", "127,128")
    manifest, found = records(tmp_path)
    assert manifest.backbone.image_definition == f"upright-rgb-{SIZE}-bilinear/2+127,128"
    assert (manifest.backbone.architecture, manifest.backbone.embedding_size) == ("frozen_graph", 6)
    assert found
    for uri, embedding in found.items():
        pixels = (decode_image((photos / uri).read_bytes(), size=SIZE) - 127.0) / 128
        expected = [*pixels.mean((0, 1)), *pixels[: SIZE // 2, : SIZE // 2].mean((0, 1))]
        np.testing.assert_allclose(embedding, expected, atol=1e-4)
    report = json.loads((tmp_path / "_set" / "report.json").read_text())
    assert report["backbone"]["output_tensor"] == "means:0"


def test_another_tensor_scaling_or_size_is_another_job(run, graph):
    flags = ["--output_tensor", "means", "--scaling", "unit"]
    run(*flags)
    assert "nothing to do" in run(*flags)
    # What the file says anyway may be said.
    assert "nothing to do" in run(*flags, "--image_size", str(SIZE))
    for other, words in (
        (["--output_tensor", "colour", "--scaling", "unit"], "other backbone"),
        (["--output_tensor", "means", "--scaling", "tf"], "other image_definition"),
    ):
        with pytest.raises(InputError, match=words):
            run(*other)
    data = graph.read_bytes()
    graph.write_bytes(data + b"\x22\x02\x08\x01")  # Other versions: another file of the same name.
    try:
        with pytest.raises(InputError, match="weights_sha256"):
            run(*flags)
    finally:
        graph.write_bytes(data)


def test_wrong_input_leaves_nothing(run, tmp_path):
    for flags, words in (
        (["--scaling", "unit"], "--output_tensor: name the tensor .* means:0 [(]6[)]"),
        (["--output_tensor", "means"], "--scaling: .* does not say how it wants pixels"),
        (["--output_tensor", "maens", "--scaling", "unit"], "Did you mean 'means:0'"),
        (["--output_tensor", "means", "--scaling", "unit", "--weights", "x.h5"], "weights: .* does not go with it"),
    ):
        with pytest.raises(InputError, match=words):
            run(*flags)
    assert not (tmp_path / "_set").exists()
