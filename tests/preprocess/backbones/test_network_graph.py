"""Graphs made from templates have the bytes of those that TensorFlow makes, for all kinds of weights."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones import backbone, graph_template, network_graph
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.backbones.graph_template import find_template
from preprocess.backbones.inference_graph import inference_graph
from preprocess.backbones.make_graph_templates import make_template
from preprocess.backbones.network_graph import write_network_graph
from tests.support import tiny_network

TINY = tiny_network.NAME
# Of random weights with seed 0; `test_inference_graph.py` holds that TensorFlow makes it.
INCEPTION = "c286b6c422e0e5128d5d8d258dcf8a7107644ec4ee4157f4c34c87ca53d4207f"


@pytest.fixture(scope="module")
def template():
    pytest.importorskip("tensorflow")
    return make_template(tiny_network.build(), "tf")


@pytest.fixture
def tiny(monkeypatch, template):
    """The tiny network with a template; TensorFlow makes none of its graphs."""
    tiny_network.install(monkeypatch)
    with_template = dataclasses.replace(ARCHITECTURES[TINY], template=TINY)
    monkeypatch.setitem(backbone.ARCHITECTURES, TINY, with_template)
    monkeypatch.setattr(network_graph, "find_template", {TINY: template}.get)
    monkeypatch.setattr(network_graph, "inference_graph", lambda *args: pytest.fail("made with TensorFlow"))


def by_keras(spec):
    model, identity = load_keras_backbone(spec)
    return inference_graph(model, spec.image.scaling), identity


def by_us(spec, tmp_path):
    identity = write_network_graph(spec, str(tmp_path / "graph.pb"))
    return (tmp_path / "graph.pb").read_bytes(), identity


def save_as_keras_2(model, path):
    """Writes weights in the format of the files that Keras publishes."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_the_templates_of_the_table_are_there_and_fit_the_installed_versions():
    named = {name: one.template for name, one in ARCHITECTURES.items() if one.template is not None}
    assert set(named) == {"inception_v3", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
    for name in named.values():
        # After an update of Keras or TensorFlow: python -m preprocess.backbones.make_graph_templates
        assert find_template(name) is not None


def test_the_graph_of_inception_has_the_bytes_that_tensorflow_makes_and_is_made_without_it(tmp_path):
    program = (
        "import sys\n"
        "from preprocess.backbones.backbone import BackboneSpec\n"
        "from preprocess.backbones.network_graph import write_network_graph\n"
        f"print(write_network_graph(BackboneSpec(weights='random'), {str(tmp_path / 'graph.pb')!r}).weights_digest)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert hashlib.sha256((tmp_path / "graph.pb").read_bytes()).hexdigest() == INCEPTION
    assert done.stdout.strip() == "sha256:85f580a61e6ca5fc313c52c41fe76a1ea78a8c89f6106f4ab72395ff2fe0f733"


def test_the_graph_of_installed_weights_has_the_bytes_that_tensorflow_makes(tmp_path):
    spec = BackboneSpec(architecture="efficientnet_lite0")
    if ARCHITECTURES[spec.architecture].imagenet.find() is None:
        pytest.skip("the extra weights is not installed")
    graph, identity = by_keras(spec)
    assert by_us(spec, tmp_path) == (graph, identity)


def test_random_weights(tiny, tmp_path):
    spec = BackboneSpec(architecture=TINY, weights="random", seed=7)
    assert by_us(spec, tmp_path) == by_keras(spec)


def test_a_file_of_the_format_in_which_keras_publishes_weights(tiny, tmp_path):
    save_as_keras_2(tiny_network.trained(tiny_network.build()), tmp_path / "trained.h5")
    spec = BackboneSpec(architecture=TINY, weights=str(tmp_path / "trained.h5"))
    assert by_us(spec, tmp_path) == by_keras(spec)


def test_files_of_other_formats_are_read_by_keras(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(network_graph, "inference_graph", inference_graph)
    model = tiny_network.trained(tiny_network.build())
    model.save_weights(tmp_path / "trained.weights.h5")
    spec = BackboneSpec(architecture=TINY, weights=str(tmp_path / "trained.weights.h5"))
    assert by_us(spec, tmp_path) == by_keras(spec)


def test_a_file_that_does_not_fit_is_refused_in_the_words_of_all_files(tiny, tmp_path):
    import keras

    other = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3)])
    save_as_keras_2(other, tmp_path / "other.h5")
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for name in ("other.h5", "damaged.h5"):
        with pytest.raises(InputError, match="does not fit the network tiny"):
            write_network_graph(BackboneSpec(architecture=TINY, weights=str(tmp_path / name)), str(tmp_path / "graph"))


def test_a_template_of_other_versions_is_not_used(template, tmp_path, monkeypatch):
    template.save("one", str(tmp_path))
    assert find_template("one", str(tmp_path)) == template
    assert find_template("other", str(tmp_path)) is None
    monkeypatch.setattr(graph_template, "versions_here", lambda: {"keras": "4.0", "tensorflow": None})
    assert find_template("one", str(tmp_path)) is None


def test_weights_of_other_shapes_or_types_fill_no_template(template):
    weights = [[np.zeros(shape, np.float32) for _, shape in layer.weights] for layer in template.layers]
    assert b"".join(template.fill(weights))
    weights[0][0] = weights[0][0].astype(np.float16)
    with pytest.raises(ValueError, match=r"conv2d.*: kernel is float16"):
        b"".join(template.fill(weights))
    with pytest.raises(ValueError, match="shorter"):
        b"".join(template.fill(weights[:0]))
