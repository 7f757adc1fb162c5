"""All engines on a tiny network, and on Inception v3 once; that of GPUs runs on the CPU here."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.engines import select
from preprocess.engines.converted_networks import find_int8_network, load_network, load_operations
from preprocess.engines.fidelity import centred_cosines, embed_all
from preprocess.engines.int8 import MIN_IMAGES, calibrate
from preprocess.engines.jax_engine import JaxEngine
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.openvino_engine import OpenVinoEngine, cpu_has_bfloat16, read_network
from preprocess.engines.select import EngineSpec, check_engine, load_engine
from preprocess.engines.tensorflow_engine import TensorFlowEngine
from preprocess.images.probe_images import probe_images
from tests.support import tiny_network


@pytest.fixture(scope="module")
def module_patch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tiny_network.install(patch)
        patch.setattr(select, "_loaded", {})
        yield patch


@pytest.fixture(scope="module")
def tiny(module_patch):
    return BackboneSpec(architecture=tiny_network.NAME, weights="random", seed=3)


@pytest.fixture(scope="module")
def network(tiny):
    return load_network(tiny, ModelCache())


@pytest.fixture
def fresh(monkeypatch):
    """Forgets the engines that this process has loaded, as a new process would; the cache on disk stays."""
    monkeypatch.setattr(select, "_loaded", {})


@pytest.fixture(scope="module")
def pixels():
    return probe_images(20)


@pytest.fixture(scope="module", params=["tensorflow", "openvino", "jax"])
def engine(request, network):
    if request.param == "tensorflow":
        return TensorFlowEngine(network.graph, network.identity)
    if request.param == "jax":
        return JaxEngine(load_operations(network, ModelCache()), network.identity)
    pytest.importorskip("openvino")
    return OpenVinoEngine(read_network(network.graph_path), network.identity)


def test_an_engine_embeds_as_the_keras_model_does(engine, tiny, pixels):
    model, identity = load_keras_backbone(tiny)
    assert engine.identity == identity
    expected = model(pixels.astype(np.float32) / 127.5 - 1, training=False).numpy()
    found = embed_all(engine, pixels)
    assert found.dtype == np.float32
    assert found.shape == (20, 24)
    assert centred_cosines(found, expected).min() > 0.99999


def test_the_same_batch_gives_the_same_bytes_whatever_else_is_under_way(engine, pixels):
    alone = [engine.start(pixels[start : start + 4]).result() for start in range(0, 20, 4)]
    together = [engine.start(pixels[start : start + 4]) for _ in range(6) for start in range(0, 20, 4)]
    for number, future in enumerate(together):
        np.testing.assert_array_equal(future.result(), alone[number % 5])


def test_results_outlive_the_batches_that_follow(engine, pixels):
    first = engine.start(pixels[:3]).result()
    kept = first.copy()
    for _ in range(2 * engine.max_pending):
        engine.start(pixels[3:6]).result()
    np.testing.assert_array_equal(first, kept)


def test_brightness_multiplies_pixels_without_rounding_or_clipping(engine, tiny, pixels):
    model, _ = load_keras_backbone(tiny)
    brightness = np.linspace(0.3, 1.97, 8).astype(np.float32)
    bright = pixels[:8] * brightness[:, None, None, None]
    assert bright.max() > 400
    found = engine.start(pixels[:8], brightness).result()
    expected = model(bright / 127.5 - 1, training=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    clipped = model(np.minimum(bright, 255) / 127.5 - 1, training=False).numpy()
    assert np.abs(clipped - expected).max() > 100 * np.abs(found - expected).max()
    # An embedding depends on its own factor only, and that of 1 is the one without.
    np.testing.assert_array_equal(engine.start(pixels[2:5], brightness[2:5]).result(), found[2:5])
    plain = engine.start(pixels[:3]).result()
    np.testing.assert_array_equal(engine.start(pixels[:3], np.ones(3, np.float32)).result(), plain)


def test_an_embedding_does_not_depend_on_its_batch(engine, pixels):
    # A run that goes on where another was stopped has other batches, and is to give the same bytes.
    whole = engine.start(pixels[:8]).result()
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [0], [3, 1, 2], [9, 10, 0, 11, 12, 13, 14, 5], [5, 6, 7, 8, 9, 10, 1]):
        found = engine.start(pixels[order]).result()
        for position, number in enumerate(order):
            if number < 8:
                np.testing.assert_array_equal(found[position], whole[number])


def test_a_batch_that_fails_says_so_in_its_future_and_the_next_succeeds(engine, pixels):
    with pytest.raises(Exception, match="(?i)shape|dimension"):
        engine.start(pixels[:2, :10]).result(timeout=60)
    assert engine.start(pixels[:2]).result(timeout=60).shape == (2, 24)


def test_auto_says_what_it_took_and_why(tiny, fresh):
    pytest.importorskip("openvino")
    engine = load_engine(tiny, EngineSpec())
    assert load_engine(tiny, EngineSpec()) is engine
    assert engine.info.engine == "openvino"
    assert engine.info.precision in ("float32", "bfloat16")
    assert engine.info.why.startswith(engine.info.precision)
    assert "\n" not in engine.info.why
    assert engine.info.to_json()["device"] == "cpu"


@pytest.mark.parametrize(
    ("speedup", "worst", "precision"), [(2.0, 0.995, "bfloat16"), (2.0, 0.98, "float32"), (1.05, 0.999, "float32")]
)
def test_auto_takes_bfloat16_where_it_is_faster_and_holds_the_floor(
    tiny, fresh, monkeypatch, speedup, worst, precision
):
    pytest.importorskip("openvino")
    if not cpu_has_bfloat16():
        pytest.skip("no bfloat16 on this processor")
    measured = select._Measured(speedup=speedup, worst=worst, median=1.0)
    monkeypatch.setattr(select, "_measure", lambda *args: measured)
    info = load_engine(tiny, EngineSpec()).info
    assert info.precision == precision
    assert info.fidelity == (worst if precision == "bfloat16" else None)
    assert f"{speedup:.1f} times as fast as float32 here, probe images agree to {worst:.4f}" in info.why


def test_what_was_measured_is_not_measured_again(tiny, fresh, monkeypatch):
    spec = EngineSpec(engine="tensorflow")
    first = load_engine(tiny, spec).info
    monkeypatch.setattr(select, "_loaded", {})
    monkeypatch.setattr(select, "probe_images", lambda: pytest.fail("measured again"))
    assert load_engine(tiny, spec).info == first


@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_auto_takes_again_what_the_job_was_begun_with_whatever_it_would_measure_now(tiny, fresh, monkeypatch, begun):
    pytest.importorskip("openvino")
    if not cpu_has_bfloat16():
        pytest.skip("no bfloat16 on this processor")
    first = load_engine(tiny, EngineSpec(precision=begun)).info
    # A process whose cache was lost, on a machine that is busy with something else.
    monkeypatch.setattr(select, "_loaded", {})
    otherwise = select._Measured(speedup=1.0 if begun == "bfloat16" else 2.0, worst=1.0, median=1.0)
    monkeypatch.setattr(select, "_measure", lambda *args: otherwise)
    assert load_engine(tiny, EngineSpec()).info.precision != begun
    engine = load_engine(tiny, EngineSpec(begun_with=first))
    assert engine.info.same_numbers_as(first)
    assert engine.info.precision == begun
    assert engine.info.why == f"{begun}: as this job was begun"
    # Who loaded it under another name in this process has it already.
    assert load_engine(tiny, EngineSpec(begun_with=engine.info)) is engine


def test_auto_keeps_to_the_engine_that_the_job_was_begun_with(tiny, fresh, monkeypatch):
    begun = load_engine(tiny, EngineSpec(engine="tensorflow", precision="float32")).info
    monkeypatch.setattr(select, "_loaded", {})
    assert load_engine(tiny, EngineSpec(begun_with=begun)).info.same_numbers_as(begun)
    with_openvino = dataclasses.replace(begun, engine="openvino")
    monkeypatch.setattr(select, "has_openvino", lambda: False)
    with pytest.raises(InputError, match="begun with OpenVINO, which is not installed here.*--overwrite"):
        load_engine(tiny, EngineSpec(begun_with=with_openvino))


def test_a_job_begun_in_a_precision_that_this_machine_lacks_says_so(tiny, fresh, monkeypatch):
    begun = load_engine(tiny, EngineSpec(engine="tensorflow", precision="float32")).info
    monkeypatch.setattr(select, "processor_has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="the job was begun in bfloat16, which tensorflow has no.*--overwrite"):
        load_engine(tiny, EngineSpec(begun_with=dataclasses.replace(begun, precision="bfloat16")))


def test_an_engine_names_the_libraries_and_the_network_that_decide_its_numbers(tiny, fresh, network):
    info = load_engine(tiny, EngineSpec(engine="tensorflow", precision="float32")).info
    digest = hashlib.sha256(network.graph).hexdigest()
    assert info.libraries[0] == f"network {digest[:12]}"
    assert {library.split()[0] for library in info.libraries} >= {"pillow", "tensorflow"}


def test_the_same_network_is_the_same_graph_whatever_else_the_process_built(tiny, network, tmp_path):
    load_keras_backbone(tiny)  # Keras numbers its layers over the whole process.
    assert load_network(tiny, ModelCache(str(tmp_path))).graph == network.graph


def test_without_openvino_auto_takes_tensorflow(tiny, fresh, monkeypatch):
    monkeypatch.setattr(select, "has_openvino", lambda: False)
    assert load_engine(tiny, EngineSpec(precision="float32")).info.engine == "tensorflow"
    for spec in (EngineSpec(engine="openvino"), EngineSpec(precision="int8")):
        with pytest.raises(InputError, match=r"needs OpenVINO.*pip install --editable .*\[openvino\]"):
            check_engine(spec)


def test_bfloat16_where_there_is_none_says_so(tiny, fresh, monkeypatch):
    monkeypatch.setattr(select, "processor_has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="precision: tensorflow has no bfloat16"):
        load_engine(tiny, EngineSpec(engine="tensorflow", precision="bfloat16"))
    info = load_engine(tiny, EngineSpec(engine="tensorflow")).info
    assert (info.precision, info.fidelity) == ("float32", None)


def test_what_can_be_wrong_with_a_spec():
    with pytest.raises(InputError, match="engine: must be one of.*Did you mean 'openvino'"):
        EngineSpec(engine="open_vino")
    with pytest.raises(InputError, match="precision: must be one of"):
        EngineSpec(precision="fp16")
    for engine in ("tensorflow", "jax"):
        with pytest.raises(InputError, match="precision: int8 needs --engine openvino"):
            EngineSpec(engine=engine, precision="int8")


def test_int8_is_calibrated_once_for_the_same_images(tiny, fresh, pixels, monkeypatch):
    pytest.importorskip("openvino")
    spec = EngineSpec(precision="int8")
    with pytest.raises(InputError, match="int8 needs images"):
        load_engine(tiny, spec)
    with pytest.raises(InputError, match=f"at least {MIN_IMAGES} images"):
        load_engine(tiny, spec, lambda: pixels[:3])
    engine = load_engine(tiny, spec, lambda: pixels)
    assert engine.info.precision == "int8"
    assert engine.info.fidelity > 0.9
    assert "calibrated on agree to" in engine.info.why
    found = embed_all(engine, pixels)
    reference = embed_all(load_engine(tiny, EngineSpec(precision="float32")), pixels)
    assert not np.array_equal(found, reference)
    assert np.median(centred_cosines(found, reference)) > 0.99
    monkeypatch.setattr(select, "_loaded", {})
    monkeypatch.setattr(
        "preprocess.engines.converted_networks.calibrate", lambda *args: pytest.fail("calibrated again")
    )
    np.testing.assert_array_equal(embed_all(load_engine(tiny, spec, lambda: pixels), pixels), found)
    # A job that goes on takes the calibration that it was begun with, although other images can be read by now.
    monkeypatch.setattr(select, "_loaded", {})
    again = load_engine(tiny, dataclasses.replace(spec, begun_with=engine.info), lambda: pytest.fail("read again"))
    assert again.info.same_numbers_as(engine.info)
    np.testing.assert_array_equal(embed_all(again, pixels), found)
    # Where that is lost it is made again of the images of today, and the digest tells whether they are the same.
    monkeypatch.setattr(select, "_loaded", {})
    lost = dataclasses.replace(engine.info, calibration="0" * 8)
    monkeypatch.setattr("preprocess.engines.converted_networks.calibrate", calibrate)
    assert not load_engine(tiny, dataclasses.replace(spec, begun_with=lost), lambda: pixels).info.same_numbers_as(lost)


def test_a_calibration_of_another_version_is_not_used(tiny, fresh, network, pixels, monkeypatch):
    pytest.importorskip("openvino")
    spec = EngineSpec(precision="int8")
    for module in ("int8", "converted_networks"):
        monkeypatch.setattr(f"preprocess.engines.{module}.CALIBRATION_VERSION", 2)
    older = load_engine(tiny, spec, lambda: pixels).info
    assert find_int8_network(network, older.calibration, ModelCache()) is not None
    monkeypatch.undo()
    monkeypatch.setattr(select, "_loaded", {})
    assert find_int8_network(network, older.calibration, ModelCache()) is None
    # A set that was begun with it is not gone on with: the digest differs, of the same images.
    begun = dataclasses.replace(spec, begun_with=older)
    assert not load_engine(tiny, begun, lambda: pixels).info.same_numbers_as(older)


def test_calibration_is_deterministic_and_silent(network, pixels, tmp_path, capfd):
    pytest.importorskip("openvino")
    from preprocess.engines.converted_networks import load_int8_network

    embeddings = []
    for name in ("a", "b"):
        quantized = load_int8_network(network, pixels, ModelCache(str(tmp_path / name)))
        embeddings.append(embed_all(OpenVinoEngine(quantized, network.identity, precision="int8"), pixels))
    np.testing.assert_array_equal(*embeddings)
    assert capfd.readouterr().out == ""


def test_the_first_and_the_last_layer_are_not_quantized(network, pixels):
    pytest.importorskip("openvino")
    source = read_network(network.graph_path)
    quantized = calibrate(source, pixels[:MIN_IMAGES])
    kinds = [
        {one.get_node().get_type_name() for one in layer.input_values()}
        for layer in quantized.get_ordered_ops()
        if layer.get_type_name() == "Convolution"
    ]
    assert len(kinds) == 3
    assert ["FakeQuantize" in kind for kind in kinds] == [False, True, False]


def test_weights_files_are_told_apart_by_their_content(module_patch, tmp_path):
    cache = ModelCache(str(tmp_path / "cache"))
    spec = BackboneSpec(architecture=tiny_network.NAME, weights="random", seed=5)
    model, identity = load_keras_backbone(spec)
    here, there = str(tmp_path / "here.weights.h5"), str(tmp_path / "there.weights.h5")
    model.save_weights(here)
    (tmp_path / "there.weights.h5").write_bytes((tmp_path / "here.weights.h5").read_bytes())
    first = load_network(BackboneSpec(architecture=tiny_network.NAME, weights=here), cache)
    assert first.identity.agrees_with(identity)
    module_patch.setattr(
        "preprocess.backbones.network_graph.load_keras_backbone", lambda spec: pytest.fail("converted again")
    )
    second = load_network(BackboneSpec(architecture=tiny_network.NAME, weights=there), cache)
    assert second.identity.weights == there
    assert second.graph_path == first.graph_path
    module_patch.setattr("preprocess.backbones.network_graph.load_keras_backbone", load_keras_backbone)
    trained = tiny_network.trained(model)
    trained.save_weights(there)
    third = load_network(BackboneSpec(architecture=tiny_network.NAME, weights=there), cache)
    assert not third.identity.agrees_with(identity)


WARM_START = """
import sys
import numpy as np
from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines.select import EngineSpec, load_engine
engine = load_engine(BackboneSpec(weights="random"), EngineSpec(engine="openvino", precision="float32"))
assert engine.start(np.zeros((1, 299, 299, 3), np.uint8)).result().shape == (1, 2048)
assert engine.identity.embedding_size == 2048
assert "tensorflow" not in sys.modules and "keras" not in sys.modules, "a warm start imports TensorFlow"
assert sys.modules.get("openvino_telemetry") is None, "telemetry is on"
"""


def test_inception_v3_on_all_engines(module_patch):
    pytest.importorskip("openvino")
    module_patch.setattr(select, "_loaded", {})
    spec = BackboneSpec(weights="random")
    pixels = probe_images(5)
    reference = load_engine(spec, EngineSpec(engine="tensorflow", precision="float32"))
    embeddings = embed_all(reference, pixels)
    exact = embed_all(load_engine(spec, EngineSpec(engine="openvino", precision="float32")), pixels)
    assert centred_cosines(exact, embeddings).min() > 0.99999
    by_xla = embed_all(load_engine(spec, EngineSpec(engine="jax", precision="float32")), pixels)
    np.testing.assert_allclose(by_xla, embeddings, atol=1e-4)
    # Drawn with a stream that NumPy has frozen, and the same from the cache as from Keras.
    assert reference.identity.weights_digest.startswith("sha256:85f580a61e6ca5fc")
    done = subprocess.run([sys.executable, "-c", WARM_START], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
