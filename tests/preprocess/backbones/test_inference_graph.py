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


def test_the_graph_of_inception_is_the_one_of_earlier_versions():
    # Its digest stands in every set that was begun: with another one, they would not be gone on with.
    import hashlib

    import keras
    import tensorflow as tf

    from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone

    if (keras.__version__, tf.__version__) != ("3.15.1", "2.21.0"):
        pytest.skip("other versions make other graphs")
    network, _ = load_keras_backbone(BackboneSpec(weights="random"))
    digest = hashlib.sha256(inference_graph(network)).hexdigest()
    assert digest == "c286b6c422e0e5128d5d8d258dcf8a7107644ec4ee4157f4c34c87ca53d4207f"


def test_layers_of_other_networks():
    """Depthwise convolutions are folded; means of normalizations are constants; what nobody reads is left out."""
    import keras

    layers = keras.layers
    pixels = layers.Input((32, 32, 3))
    x = layers.Normalization(mean=[100, 120, 90], variance=[9, 4, 16])(pixels)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x))
    squeezed = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 1)(x * layers.Conv2D(6, 1, activation="sigmoid")(squeezed)))
    adapted = layers.Normalization(axis=-1)
    x = adapted(x)
    network = keras.Model(pixels, layers.GlobalAveragePooling2D()(x))
    random = np.random.RandomState(0)
    network.set_weights([random.uniform(0.5, 1, array.shape) * (array + 0.1) for array in network.get_weights()])
    adapted.finalize_state()
    images = probe_images(3, size=32)
    expected = network(images.astype(np.float32), training=False).numpy()
    embeddings, operations = run(inference_graph(network, "none"), images)
    assert expected.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert not operations & {"VarHandleOp", "FusedBatchNormV3"}
