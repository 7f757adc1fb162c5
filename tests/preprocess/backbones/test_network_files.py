"""Networks from a file or a folder, made here in the forms that people have them in."""

import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest

from configs.errors import InputError
from configs.recipe import PreprocessOptions
from preprocess.backbones.backbone import (
    BackboneSpec,
    check_weights,
    complete_spec,
    load_classifier,
    load_keras_backbone,
)
from preprocess.backbones.inference_graph import inference_graph
from preprocess.backbones.network_files import digest_of_network
from preprocess.backbones.staged_weights import stage_weights
from preprocess.engines.converted_networks import load_network
from preprocess.engines.model_cache import ModelCache
from preprocess.images.probe_images import probe_images
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import LocalStorage

SIZE = 32
GRAPH = "../shared/models/mobilenet_v1_0.25_128/frozen_graph.pb"


def spec_of(path, **options):
    return BackboneSpec.of_options(PreprocessOptions(backbone=str(path), **options))


def refusal(path, **options):
    with pytest.raises(InputError) as error:
        spec = spec_of(path, **options)
        check_weights(spec)
        complete_spec(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def model():
    import keras

    layers = keras.layers
    pixels = layers.Input((SIZE, SIZE, 3), name="picture")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2, use_bias=False)(pixels)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    network = keras.Model(pixels, layers.Dense(4, activation="softmax", name="classes")(features))
    random = np.random.RandomState(0)
    network.set_weights([random.uniform(0.5, 1, array.shape) * (array + 0.1) for array in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def features(model):
    """The embeddings of some pixels by Keras, with the scaling `unit`."""
    import keras

    network = keras.Model(model.inputs, model.get_layer("features").output)
    return network(probe_images(3, size=SIZE).astype(np.float32) / 255, training=False).numpy()


def frozen(model, path):
    """Writes the model as a frozen graph; returns the names of its input, features and classes."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    both = keras.Model(model.inputs, [model.get_layer("features").output, model.output])
    signature = [tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, name="picture")]
    function = convert_variables_to_constants_v2(tf.function(both, input_signature=signature).get_concrete_function())
    path.write_bytes(function.graph.as_graph_def().SerializeToString())
    return [function.inputs[0].name, *(output.name for output in function.outputs)]


def embeddings_of(spec):
    """By the graph that engines run, from pixels."""
    import tensorflow as tf

    spec = complete_spec(spec)
    network, identity = load_keras_backbone(spec)
    graph = tf.compat.v1.GraphDef.FromString(inference_graph(network, spec.image.scaling))
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
    with tf.compat.v1.Session(graph=loaded) as session:
        return session.run("embeddings:0", {"pixels:0": probe_images(3, size=SIZE)}), identity


def test_a_frozen_graph_for_one_image_takes_batches(model, features, tmp_path):
    path = tmp_path / "network.pb"
    pixels, embedding, _ = frozen(model, path)
    found, identity = embeddings_of(spec_of(path, output_tensor=embedding, scaling="unit"))
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    assert (identity.architecture, identity.weights) == ("frozen_graph", str(path))
    assert (identity.input_tensor, identity.output_tensor) == (pixels, embedding)
    assert identity.image_definition == f"upright-rgb-{SIZE}-bilinear/2+unit"
    # What a manifest says is enough to load it again.
    again = BackboneIdentity.from_json(identity.to_json(), where="m")
    assert again == identity
    assert load_keras_backbone(BackboneSpec.of_identity(again))[1] == identity
    # Another tensor, or another scaling, is another network.
    other = load_keras_backbone(complete_spec(spec_of(path, output_tensor=embedding, scaling="tf")))[1]
    assert not other.agrees_with(identity)


def test_a_saved_model_and_a_keras_file(model, features, tmp_path, monkeypatch):
    import keras

    network = keras.Model(model.inputs, model.get_layer("features").output)
    network.export(tmp_path / "saved", verbose=False)
    model.save(tmp_path / "whole.keras")
    handle = "https://tfhub.dev/somebody/network/feature_vector/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    shutil.copytree(tmp_path / "saved", tmp_path / "hub" / hashlib.sha1(handle.encode()).hexdigest())
    for path, options in (
        (tmp_path / "saved", {}),
        (handle, {}),
        (tmp_path / "whole.keras", {"output_tensor": "features"}),
    ):
        found, identity = embeddings_of(spec_of(path, scaling="unit", **options))
        np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5, err_msg=str(path))
        assert identity.weights == str(path)
    assert "is not in" in refusal("https://tfhub.dev/somebody/other/1")
    monkeypatch.delenv("TFHUB_CACHE_DIR")
    assert "TFHUB_CACHE_DIR, which is not set" in refusal(handle)


def test_a_module_of_tensorflow_1(tmp_path):
    """Several graphs, of which the one without tags is for inference, and several outputs, one of them `default`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(tmp_path / "module"))
    for tags in ([], ["train"]):
        with tf.Graph().as_default(), v1.Session() as session:
            pixels = v1.placeholder(tf.float32, [None, None, None, 3])
            factor = v1.get_variable("factor", initializer=2.0 if tags == [] else 99.0, use_resource=True)
            colours = tf.reduce_mean(pixels, [1, 2]) * factor
            outputs = {"default": colours, "InceptionV3/global_pool": colours[:, tf.newaxis, tf.newaxis]}
            signature = v1.saved_model.predict_signature_def({"images": pixels}, outputs)
            session.run(v1.global_variables_initializer())
            signatures = {"image_feature_vector": signature, "default": signature}
            if tags == []:
                builder.add_meta_graph_and_variables(session, tags, signature_def_map=signatures)
            else:
                builder.add_meta_graph(tags, signature_def_map=signatures)
    builder.save()
    assert "--image_size: " in refusal(tmp_path / "module", scaling="unit")
    found, identity = embeddings_of(spec_of(tmp_path / "module", scaling="unit", image_size=SIZE))
    expected = 2 * probe_images(3, size=SIZE).astype(np.float32).mean((1, 2)) / 255
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (identity.input_tensor, identity.output_tensor) == ("images", "default")


def test_workers_get_a_folder_as_one_file(model, features, tmp_path):
    import keras

    keras.Model(model.inputs, model.get_layer("features").output).export(tmp_path / "saved", verbose=False)
    spec = complete_spec(spec_of(tmp_path / "saved", scaling="unit"))
    staged = stage_weights(spec, str(tmp_path / "staging"), LocalStorage())
    assert staged == stage_weights(spec, str(tmp_path / "staging"), LocalStorage())
    assert len(os.listdir(tmp_path / "staging")) == 1
    digest = digest_of_network(str(tmp_path / "saved"))
    shutil.rmtree(tmp_path / "saved")  # A worker does not have it.
    check_weights(staged)
    found, identity = embeddings_of(staged)
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    assert identity.weights_digest == f"sha256:{digest}"


def test_its_graph_is_kept_by_content_and_tensors(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HUGS_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "network.pb"
    _, embedding, classes = frozen(model, path)
    first = load_network(complete_spec(spec_of(path, output_tensor=embedding, scaling="unit")), ModelCache())
    shutil.copy(path, tmp_path / "copy.pb")
    copy = complete_spec(spec_of(tmp_path / "copy.pb", output_tensor=embedding, scaling="unit"))
    assert load_network(copy, ModelCache()).graph_path == first.graph_path
    for options in ({"output_tensor": classes, "scaling": "unit"}, {"output_tensor": embedding, "scaling": "none"}):
        other = load_network(complete_spec(spec_of(path, **options)), ModelCache())
        assert other.graph_sha256 != first.graph_sha256


def graph_of_2015():
    """The layers of classify_image_graph_def.pb, from its JPEG to its classes: the operations of 2015, one image."""
    import tensorflow as tf

    random = np.random.RandomState(0)
    graph = tf.compat.v1.GraphDef()

    def node(op, name, *inputs, **attributes):
        added = graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            if isinstance(value, tf.DType):
                added.attr[key].type = value.as_datatype_enum
            elif isinstance(value, bool):
                added.attr[key].b = value
            elif isinstance(value, float):
                added.attr[key].f = value
            elif isinstance(value, bytes):
                added.attr[key].s = value
            elif isinstance(value, list):
                added.attr[key].list.i.extend(value)
            else:
                added.attr[key].tensor.CopyFrom(tf.make_tensor_proto(value))

    def constant(name, value):
        dtype = tf.dtypes.as_dtype(np.asarray(value).dtype)
        node("Const", name, value=np.asarray(value), dtype=dtype)

    node("Const", "DecodeJpeg/contents", value=b"", dtype=tf.string)
    graph.node[-1].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(b"x"))
    node("DecodeJpeg", "DecodeJpeg", "DecodeJpeg/contents")
    node("Cast", "Cast", "DecodeJpeg", SrcT=tf.uint8, DstT=tf.float32)
    constant("ExpandDims/dim", np.int32(0))
    node("ExpandDims", "ExpandDims", "Cast", "ExpandDims/dim", T=tf.float32)
    constant("ResizeBilinear/size", np.asarray([299, 299], np.int32))
    node("ResizeBilinear", "ResizeBilinear", "ExpandDims", "ResizeBilinear/size", T=tf.float32)
    constant("Sub/y", np.float32(128))
    node("Sub", "Sub", "ResizeBilinear", "Sub/y", T=tf.float32)
    constant("Mul/y", np.float32(1 / 128))
    node("Mul", "Mul", "Sub", "Mul/y", T=tf.float32)
    weights = {"kernel": random.normal(0, 0.2, (9, 9, 3, 5)), "mean": random.uniform(-1, 1, 5)}
    weights |= {"variance": random.uniform(0.5, 2, 5), "beta": random.uniform(-1, 1, 5), "gamma": np.full(5, 9.0)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    for name, array in weights.items():
        constant(f"conv/{name}", array)
    node("Conv2D", "conv/Conv2D", "Mul", "conv/kernel", T=tf.float32, strides=[1, 9, 9, 1], padding=b"VALID")
    node(
        "BatchNormWithGlobalNormalization",
        "conv/batchnorm",
        "conv/Conv2D",
        *(f"conv/{name}" for name in ("mean", "variance", "beta", "gamma")),
        T=tf.float32,
        variance_epsilon=0.001,
        scale_after_normalization=False,
    )
    node("CheckNumerics", "conv/CheckNumerics", "conv/batchnorm", T=tf.float32, message=b"x")
    node("Identity", "conv/control_dependency", "conv/batchnorm", "^conv/CheckNumerics", T=tf.float32)
    node("Relu", "conv", "conv/control_dependency", T=tf.float32)
    node("AvgPool", "pool_3", "conv", T=tf.float32, ksize=[1, 33, 33, 1], strides=[1, 1, 1, 1], padding=b"VALID")
    constant("pool_3/_reshape/shape", np.asarray([1, 5], np.int32))
    node("Reshape", "pool_3/_reshape", "pool_3", "pool_3/_reshape/shape", T=tf.float32)
    constant("softmax/weights", random.normal(0, 1, (5, 1008)).astype(np.float32))
    node("MatMul", "softmax/logits/MatMul", "pool_3/_reshape", "softmax/weights", T=tf.float32)
    node("Softmax", "softmax", "softmax/logits/MatMul", T=tf.float32)
    graph.versions.producer = 8
    return graph, weights


def test_the_graph_of_2015_is_known_by_its_content(tmp_path):
    import tensorflow as tf

    graph, weights = graph_of_2015()
    path = tmp_path / "anything.bin"
    path.write_bytes(graph.SerializeToString())
    spec = complete_spec(spec_of(path))
    assert (spec.input_tensor, spec.output_tensor) == ("ResizeBilinear:0", "pool_3/_reshape:0")
    assert (spec.image.size, spec.image.scaling) == (299, "none")
    network, identity = load_keras_backbone(spec)
    assert identity.embedding_size == 5
    pixels = probe_images(2).astype(np.float32)
    values = tf.nn.conv2d((pixels - 128) / 128, weights["kernel"], 9, "VALID")
    # Without the scale, which scale_after_normalization leaves out.
    values = (values - weights["mean"]) / np.sqrt(weights["variance"] + 0.001) + weights["beta"]
    expected = tf.reduce_mean(tf.nn.relu(values), axis=[1, 2])
    np.testing.assert_allclose(network(pixels, training=False), expected, rtol=1e-3, atol=1e-4)
    classifier = load_classifier(spec_of(path))
    assert classifier.model.output_shape == (None, 1008)
    np.testing.assert_allclose(classifier.scores(probe_images(2)).sum(axis=1), 1, rtol=1e-4)


def test_wrong_input_is_one_line(model, tmp_path):
    import keras
    import tensorflow as tf

    path = tmp_path / "network.pb"
    _, embedding, classes = frozen(model, path)
    assert "Did you mean 'inception_v3'?" in refusal("inception_v4")
    assert "there is no file or folder './nix.pb'" in refusal("./nix.pb")
    assert "there is no file 's3://b/x.pb'. Pass a local path" in refusal("s3://b/x.pb")
    assert "is a network with its weights" in refusal(path, weights="random")
    assert "belongs to a --backbone that is a file" in refusal("resnet50", image_size=64)
    assert f"{embedding} (12)" in (listed := refusal(path, scaling="unit")) and f"{classes} (4)" in listed
    missing = refusal(path, scaling="unit", output_tensor="featurs")
    assert "has no tensor 'featurs:0'" in missing and f"{embedding} (12)" in missing
    assert "has no tensor 'picutre'. Did you mean 'picture'?" in refusal(path, scaling="unit", input_tensor="picutre")
    assert "does not depend on" in refusal(path, scaling="unit", output_tensor="picture")
    assert "does not say how it wants pixels" in refusal(path, output_tensor=embedding)
    assert "scaling: must be" in refusal(path, scaling="unti", output_tensor=embedding)
    assert "image_size: must be from 8" in refusal(path, scaling="unit", output_tensor=embedding, image_size=2000)

    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "pickle.pb").write_bytes(pickle.dumps(Call()))
    assert "a pickle, which could run code. Nothing of it was run" in refusal(tmp_path / "pickle.pb")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.pb").write_text("hello")
    assert "no frozen graph" in refusal(tmp_path / "text.pb")
    (tmp_path / "empty").mkdir()
    assert "holds no SavedModel" in refusal(tmp_path / "empty")
    (tmp_path / "x.keras").write_text("hello")
    assert "cannot be read by Keras" in refusal(tmp_path / "x.keras")

    left, right = keras.Input((SIZE, SIZE, 3), name="left"), keras.Input((SIZE, SIZE, 3), name="right")
    two = keras.Model([left, right], keras.layers.GlobalAveragePooling2D()(left + right))
    two.export(tmp_path / "two", verbose=False)
    assert "has 2 inputs (left, right), and a backbone has one" in refusal(tmp_path / "two", scaling="unit")
    assert os.path.basename(refusal(tmp_path / "two" / "saved_model.pb")).startswith("two'")
    two.save(tmp_path / "two.keras")
    assert "has 2 inputs (left, right)" in refusal(tmp_path / "two.keras", scaling="unit")
    lambdas = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Lambda(lambda x: x[:, 0, 0])])
    lambdas.save(tmp_path / "lambda.keras")
    assert "cannot be read by Keras" in refusal(tmp_path / "lambda.keras", scaling="unit")

    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="pixels")
        name = tf.io.read_file("/etc/hostname")
        tf.identity(tf.reduce_mean(pixels, [1, 2]) + tf.cast(tf.strings.length(name), tf.float32), name="read")
        switch = tf.compat.v1.placeholder(tf.float32, [], name="switch")
        tf.identity(tf.reduce_mean(pixels, [1, 2]) * switch, name="switched")
        tf.identity(tf.reduce_mean(pixels, [1, 2]) + tf.random.normal([3]), name="random")
        tf.identity(tf.reduce_mean(pixels, [1, 2]) - tf.reduce_mean(pixels), name="mixed")
    (tmp_path / "odd.pb").write_bytes(graph.as_graph_def().SerializeToString())
    odd = {"scaling": "unit", "input_tensor": "pixels"}
    assert "has 2 inputs" in refusal(tmp_path / "odd.pb", scaling="unit")
    assert "the operation ReadFile" in refusal(tmp_path / "odd.pb", output_tensor="read", **odd)
    assert "depend on a second input, switch" in refusal(tmp_path / "odd.pb", output_tensor="switched", **odd)
    assert "the operation Random" in refusal(tmp_path / "odd.pb", output_tensor="random", **odd)
    assert "an embedding of its own" in refusal(tmp_path / "odd.pb", output_tensor="mixed", **odd)


@pytest.mark.skipif(not os.path.exists(GRAPH), reason="the shared graph is not here")
def test_a_graph_of_tf_slim_is_known_by_its_content():
    spec = complete_spec(spec_of(GRAPH))
    assert spec.output_tensor == "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"
    assert (spec.image.size, spec.image.scaling) == (128, "tf")
    assert load_keras_backbone(spec)[1].embedding_size == 256
