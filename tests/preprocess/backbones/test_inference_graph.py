import numpy as np
import pytest

from preprocess.backbones.inference_graph import inference_graph
from preprocess.images.probe_images import probe_images
from tests.support import tiny_network


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("tensorflow")
    return tiny_network.trained(tiny_network.build())


def run(graph, pixels):
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(graph)
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(definition, name="")
    with tf.compat.v1.Session(graph=loaded) as session:
        return session.run("embeddings:0", {"pixels:0": pixels}), {node.op for node in definition.node}


def test_the_graph_is_the_model_with_the_pixel_scaling_in_front(model):
    pixels = probe_images(3)
    embeddings, operations = run(inference_graph(model), pixels)
    expected = model(pixels.astype(np.float32) / 127.5 - 1, training=False).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert "VarHandleOp" not in operations


def test_the_model_is_left_as_it_was(model):
    before = [array.copy() for array in model.get_weights()]
    inference_graph(model)
    for array, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, after)


def test_probe_images_are_the_same_each_time_and_differ_from_each_other():
    images = probe_images(4, size=32)
    np.testing.assert_array_equal(images, probe_images(4, size=32))
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 4
    assert 10 < images.std() < 100
