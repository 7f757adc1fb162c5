"""The engine for GPUs, with XLA on the CPU: it computes what TensorFlow computes, and is taken where a GPU is seen."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec
from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS, inference_graph
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.engines import jax_engine, jax_import
from preprocess.engines import select as engine_choice
from preprocess.engines.converted_networks import load_network, load_operations
from preprocess.engines.fidelity import centred_cosines, embed_all
from preprocess.engines.jax_engine import JaxEngine
from preprocess.engines.jax_network import UnknownOperationError, check_operations
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.operations import read_graph, read_operations
from preprocess.engines.select import EngineSpec, check_engine, load_engine
from preprocess.images.probe_images import probe_images
from tests.support import tiny_network

MOBILENET = pathlib.Path(__file__).parents[4] / "shared" / "models" / "mobilenet_v1_0.25_128" / "frozen_graph.pb"


@pytest.fixture(scope="module")
def module_patch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tiny_network.install(patch)
        yield patch


@pytest.fixture(scope="module")
def tiny(module_patch):
    return BackboneSpec(architecture=tiny_network.NAME, weights="random", seed=3)


@pytest.fixture(scope="module")
def network(tiny):
    return load_network(tiny, ModelCache())


@pytest.fixture(scope="module")
def operations(network):
    return load_operations(network, ModelCache())


@pytest.fixture(scope="module")
def pixels():
    return probe_images(12)


@pytest.fixture(scope="module")
def exact(network, operations, pixels):
    return embed_all(JaxEngine(operations, network.identity), pixels)


@pytest.fixture
def with_gpu(monkeypatch):
    """As on a machine with a GPU that JAX can use; the CPU stands in for it."""
    monkeypatch.setattr(engine_choice, "_loaded", {})
    device = jax_import.import_jax().devices("cpu")[0]
    for module in (engine_choice, jax_engine):
        monkeypatch.setattr(module, "find_gpu", lambda: device)
    monkeypatch.setattr(engine_choice, "sees_gpu_driver", lambda: True)
    monkeypatch.setattr(jax_engine, "_GPU_BATCH", 4)
    monkeypatch.setattr(jax_engine, "_GPU_OPTIONS", {})
    # A test must not leave XLA's cache of this process in a folder that is deleted.
    monkeypatch.setattr(ModelCache, "folder_of_library", lambda self, name: None)


@pytest.mark.parametrize(("precision", "floor"), [("float16", 0.9999), ("bfloat16", 0.99)])
def test_lower_precisions_agree_with_float32(network, operations, pixels, exact, precision, floor):
    found = embed_all(JaxEngine(operations, network.identity, precision=precision), pixels)
    assert found.dtype == np.float32
    assert not np.array_equal(found, exact)
    assert centred_cosines(found, exact).min() > floor


def test_what_does_not_fit_memory_is_halved_and_stays_so(network, operations, pixels, exact, monkeypatch):
    engine = JaxEngine(operations, network.identity)
    compute, sizes = engine.compute, []
    error = jax_import.import_jax().errors.JaxRuntimeError

    def small_memory(sent):
        sizes.append(len(sent))
        if len(sent) > 2:
            raise error("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.")
        return compute(sent)

    monkeypatch.setattr(engine, "compute", small_memory)
    engine.batch_size = 8
    np.testing.assert_allclose(engine.start(pixels[:8]).result(), exact[:8], rtol=1e-5, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert engine.batch_size == 2
    np.testing.assert_allclose(engine.start(pixels[:8]).result(), exact[:8], rtol=1e-5, atol=1e-5)
    assert sizes[6:] == [2] * 4

    def broken(sent):
        raise error("INTERNAL: the device is gone")

    monkeypatch.setattr(engine, "compute", broken)
    with pytest.raises(error, match="the device is gone"):
        engine.start(pixels[:2]).result()


def test_an_image_too_bright_for_float16_is_computed_in_float32(network, operations, pixels, exact):
    # The features of one image pass 65504 where those of others do not.
    huge = {name: array * (3e4 if array.ndim == 4 else 1) for name, array in operations.arrays.items()}
    large = dataclasses.replace(operations, arrays=huge)
    found = embed_all(JaxEngine(large, network.identity, precision="float16"), pixels)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, embed_all(JaxEngine(large, network.identity), pixels), rtol=2e-2)


START = """
import sys
import numpy as np
from preprocess.engines.jax_engine import JaxEngine
from preprocess.engines.operations import read_operations
engine = JaxEngine(read_operations(sys.argv[1]), None)
np.save(sys.argv[2], engine.start(np.load(sys.argv[3])).result())
assert "tensorflow" not in sys.modules and "keras" not in sys.modules, "it imports TensorFlow"
"""


def test_a_later_start_needs_no_tensorflow(operations, pixels, exact, tmp_path):
    operations.save(str(tmp_path))
    kept = read_operations(str(tmp_path))
    assert kept.operations == operations.operations
    assert kept.pixel_shape == (299, 299, 3)
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-c", START, str(tmp_path), str(tmp_path / "out.npy"), str(tmp_path / "pixels.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), exact)


def compare(graph, pixels, *, atol=1e-4):
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(graph)
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(graph=loaded) as session:
            expected = session.run(f"{EMBEDDINGS}:0", {f"{PIXELS}:0": pixels})
    read = read_graph(graph)
    np.testing.assert_allclose(embed_all(JaxEngine(read, None), pixels), expected, atol=atol)
    return read, expected


def graph_of(function, shape=(16, 16, 3)):
    tf = import_tensorflow()

    def embed(pixels):
        return tf.identity(function(tf, tf.cast(pixels, tf.float32) / 127.5 - 1), name=EMBEDDINGS)

    signature = [tf.TensorSpec([None, *shape], tf.uint8, name=PIXELS)]
    traced = tf.function(embed, input_signature=signature, autograph=False).get_concrete_function()
    return traced.graph.as_graph_def().SerializeToString()


KERNEL = np.random.RandomState(1).normal(size=(3, 3, 3, 6)).astype(np.float32)
BY_GROUP = np.random.RandomState(2).normal(size=(3, 3, 1, 6)).astype(np.float32)
SIX = np.linspace(0.5, 1.5, 6, dtype=np.float32)

FUNCTIONS = {
    "same, stride": lambda tf, x: tf.nn.conv2d(x, KERNEL, 2, "SAME"),
    "explicit padding": lambda tf, x: tf.nn.conv2d(x, KERNEL, 2, [[0, 0], [0, 1], [2, 1], [0, 0]]),
    "dilated": lambda tf, x: tf.nn.conv2d(x, KERNEL, 1, "SAME", dilations=2),
    "grouped": lambda tf, x: tf.nn.conv2d(x, BY_GROUP, 1, "VALID"),
    "depthwise": lambda tf, x: tf.nn.depthwise_conv2d(x, KERNEL, [1, 2, 2, 1], "SAME"),
    "batch normalization": lambda tf, x: tf.compat.v1.nn.fused_batch_norm(
        tf.nn.conv2d(x, KERNEL, 1, "SAME"), SIX, -SIX, mean=SIX / 3, variance=SIX, is_training=False
    )[0],
    "pooling": lambda tf, x: tf.nn.avg_pool2d(x, 3, 2, "SAME") + tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "padded with ones": lambda tf, x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=1),
    "activations": lambda tf, x: tf.concat(
        [
            *(f(3 * x) for f in (tf.nn.silu, tf.nn.gelu, tf.nn.elu, tf.nn.selu, tf.nn.softplus, tf.nn.leaky_relu)),
            x * tf.nn.relu6(x + 3) / 6,
            tf.exp(-x) - tf.sqrt(tf.square(x) + 1) * tf.math.rsqrt(x * x + 2),
            tf.maximum(x, 0.1) - tf.minimum(tf.tanh(x), 0.2),
        ],
        axis=-1,
    ),
    "squeeze and excite": lambda tf, x: (
        x * tf.sigmoid(tf.reshape(tf.reduce_mean(x, [1, 2]), [tf.shape(x)[0], 1, 1, 3]))
    ),
    "shape from the batch": lambda tf, x: tf.reshape(x, tf.stack([tf.shape(x)[0], 4, 64, 3])),
    "channels first and back": lambda tf, x: tf.transpose(tf.transpose(x, [0, 3, 1, 2]), [0, 2, 3, 1]),
    "greatest": lambda tf, x: tf.expand_dims(tf.reduce_max(x, [1, 2]), 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_are_those_of_tensorflow(name):
    images = np.random.RandomState(0).randint(0, 256, (3, 16, 16, 3)).astype(np.uint8)

    def function(tf, x):
        y = FUNCTIONS[name](tf, x)
        return tf.matmul(
            tf.reshape(y, [-1, int(np.prod(y.shape[1:]))]), np.eye(int(np.prod(y.shape[1:])), 5, dtype="f")
        )

    compare(graph_of(function), images)


def test_a_network_of_keras_with_all_that_mobile_networks_have():
    import keras

    layers = keras.layers
    pixels = layers.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(layers.ZeroPadding2D(1)(pixels))
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
    weights = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    weights = layers.Conv2D(8, 1, activation="hard_sigmoid")(layers.Conv2D(2, 1, activation="relu6")(weights))
    x = layers.Dropout(0.2)(layers.Add()([x, layers.Multiply()([y, weights])]))
    model = keras.Model(pixels, layers.Dense(12)(layers.GlobalAveragePooling2D()(x)))
    graph = inference_graph(tiny_network.trained(model))
    read, _ = compare(graph, np.random.RandomState(0).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8))
    assert read.pixel_shape == (32, 32, 3)


def test_a_frozen_mobilenet_with_real_weights():
    if not MOBILENET.exists():
        pytest.skip("no ../shared")
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(MOBILENET.read_bytes())

    def features(tf, x):
        (found,) = tf.import_graph_def(
            definition,
            input_map={"input:0": x},
            return_elements=["MobilenetV1/Logits/AvgPool_1a/AvgPool:0"],
        )
        return tf.squeeze(found, [1, 2])

    images = np.ascontiguousarray(probe_images(16)[:, 80:208, 80:208])
    read, expected = compare(graph_of(features, (128, 128, 3)), images)
    half = embed_all(JaxEngine(read, None, precision="float16"), images)
    assert np.median(centred_cosines(half, expected)) > 0.999
    # Its normalizations are operations of their own here, each of which rounds.
    brain = embed_all(JaxEngine(read, None, precision="bfloat16"), images)
    assert np.median(centred_cosines(brain, expected)) > 0.9


def test_an_operation_that_it_does_not_know_is_named():
    read = read_graph(graph_of(lambda tf, x: tf.reduce_sum(tf.cumsum(x, 1), [1, 2])))
    with pytest.raises(UnknownOperationError, match=r"operation (Cumsum|Sum)"):
        check_operations(read)


def test_a_gpu_runs_jax_in_float16_or_what_else_holds_the_floor(tiny, with_gpu, monkeypatch):
    worst = {"float16": 0.9999, "bfloat16": 0.995}

    def measure(key, cache, make, precision, images):
        assert key["engine"] == "jax"
        return engine_choice._Measured(speedup=3.0, worst=worst[precision], median=1.0)

    monkeypatch.setattr(engine_choice, "_measure", measure)
    engine = load_engine(tiny, EngineSpec())
    assert (engine.info.engine, engine.info.device, engine.info.precision) == ("jax", "gpu", "float16")
    assert engine.info.why == "float16: 3.0 times as fast as float32 here, probe images agree to 0.9999"
    assert {"jax", "jaxlib"} <= {library.split()[0] for library in engine.info.libraries}
    assert load_engine(tiny, EngineSpec(begun_with=engine.info)) is engine
    monkeypatch.setattr(engine_choice, "_loaded", {})
    worst["float16"] = float("nan")
    assert load_engine(tiny, EngineSpec()).info.precision == "bfloat16"
    monkeypatch.setattr(engine_choice, "_loaded", {})
    assert load_engine(tiny, EngineSpec(precision="bfloat16")).info.why.startswith("bfloat16: asked for; 3.0 times")
    monkeypatch.setattr(engine_choice, "_loaded", {})
    worst["bfloat16"] = 0.9
    info = load_engine(tiny, EngineSpec()).info
    assert (info.precision, info.fidelity) == ("float32", None)
    assert info.why.startswith("float32: float16 is 3.0 times") and "; bfloat16 is 3.0 times" in info.why


def test_precisions_are_measured_on_the_gpu_itself(tiny, with_gpu):
    info = load_engine(tiny, EngineSpec(precision="bfloat16")).info
    assert (info.engine, info.precision) == ("jax", "bfloat16")
    assert info.fidelity > 0.99
    assert "asked for" in info.why


def test_a_network_that_jax_cannot_run_is_left_to_the_cpu(tiny, with_gpu, monkeypatch):
    def refuse(operations):
        raise UnknownOperationError("operation Cumsum")

    monkeypatch.setattr(engine_choice, "check_operations", refuse)
    monkeypatch.setattr(engine_choice, "has_openvino", lambda: False)
    info = load_engine(tiny, EngineSpec(precision="float32")).info
    assert (info.engine, info.device) == ("tensorflow", "cpu")
    assert info.why.endswith("; the GPU is not used: the engine for it cannot run this network (operation Cumsum)")
    with pytest.raises(InputError, match=r"engine: jax cannot run this network \(operation Cumsum\)"):
        load_engine(tiny, EngineSpec(engine="jax", precision="float32"))


def test_a_gpu_that_nothing_can_use_is_said(tiny, monkeypatch):
    monkeypatch.setattr(engine_choice, "_loaded", {})
    monkeypatch.setattr(engine_choice, "sees_gpu_driver", lambda: True)
    monkeypatch.setattr(engine_choice, "find_gpu", lambda: None)
    info = load_engine(tiny, EngineSpec(precision="float32")).info
    assert info.engine != "jax"
    assert "the GPU of this machine is not used: JAX for it is not installed (the extra gpu)" in info.why


def test_without_jax_its_name_is_refused_and_a_job_that_it_began_too(tiny, monkeypatch):
    monkeypatch.setattr(engine_choice, "_loaded", {})
    begun = load_engine(tiny, EngineSpec(engine="jax", precision="float32")).info
    assert (begun.engine, begun.device) == ("jax", "cpu")
    monkeypatch.setattr(engine_choice, "_loaded", {})
    monkeypatch.setattr(engine_choice, "has_jax", lambda: False)
    with pytest.raises(InputError, match=r"engine: jax needs JAX\. .*\[gpu\]"):
        check_engine(EngineSpec(engine="jax"))
    with pytest.raises(InputError, match="begun with JAX, which is not installed here.*--overwrite"):
        load_engine(tiny, EngineSpec(begun_with=begun))


def test_a_job_begun_on_a_gpu_in_float16_is_not_finished_without_one(tiny, monkeypatch):
    monkeypatch.setattr(engine_choice, "_loaded", {})
    begun = load_engine(tiny, EngineSpec(engine="jax", precision="float32")).info
    with pytest.raises(InputError, match="the job was begun in float16, which jax has no arithmetic for"):
        load_engine(tiny, EngineSpec(begun_with=dataclasses.replace(begun, precision="float16")))


def test_what_a_library_keeps_beside_the_entries_is_private(tmp_path):
    cache = ModelCache(str(tmp_path / "cache"))
    folder = pathlib.Path(cache.folder_of_library("xla"))
    assert folder == tmp_path / "cache" / "xla"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cache.folder_of_library("xla") is None
    (tmp_path / "file").write_bytes(b"")
    assert ModelCache(str(tmp_path / "file")).folder_of_library("xla") is None


START_OF_TENSORFLOW = """
import sys
from preprocess.backbones.tensorflow_import import import_tensorflow
tf = import_tensorflow()
assert "jax" not in sys.modules, "TensorFlow imports JAX"
import jax
with tf.Graph().as_default() as graph:
    tf.constant(1.0, name="one")
from preprocess.backbones.tensorflow_import import without_tensorflow_noise
with without_tensorflow_noise(), tf.compat.v1.Session(graph=graph) as session:
    assert session.run("one:0") == 1
assert jax.numpy.ones(3).sum() == 3
"""


def test_tensorflow_neither_imports_jax_nor_says_more_beside_it():
    done = subprocess.run([sys.executable, "-c", START_OF_TENSORFLOW], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
