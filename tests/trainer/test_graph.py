"""The layers of networks and models, and their graphs in TensorBoard's files."""

import json
import os

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones.tensorflow_import import import_tensorflow
from tests.support import tiny_network
from tests.support.classifiers import EMBEDDING_SIZE, IDENTITY, LABELS, build_classifier
from trainer import graph, task

pytestmark = pytest.mark.usefixtures("models_loaded_once")

tf = import_tensorflow()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    from trainer.export.saved_model import save_model

    path = str(tmp_path_factory.mktemp("training") / "model")
    backbone, head = build_classifier()
    save_model(path, backbone=backbone, head=head, labels=LABELS, identity=IDENTITY)
    return path


def layers(capsys, *flags):
    assert graph.main([*flags, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def events(log_dir):
    (name,) = [name for name in os.listdir(log_dir) if name.startswith("events.")]
    return [
        tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(os.path.join(log_dir, name))
    ]


def graph_in(log_dir):
    (found,) = [event.graph_def for event in events(log_dir) if event.HasField("graph_def")]
    return tf.compat.v1.GraphDef.FromString(found)


def test_the_layers_of_a_backbone(monkeypatch, tmp_path, capsys):
    tiny_network.install(monkeypatch)
    model = tiny_network.build()
    log_dir = tmp_path / "logs"
    found = layers(capsys, "--backbone", tiny_network.NAME, "--weights", "random", "--log_dir", str(log_dir))
    assert sum(layer["parameters"] for layer in found) == model.count_params()
    assert [layer["op"] for layer in found] == [type(layer).__name__ for layer in model.layers]
    assert found[-1]["shape"] == [None, EMBEDDING_SIZE]
    assert {layer["part"] for layer in found} == {"network"}
    assert sum(node.op == "Conv2D" for node in graph_in(log_dir / "network").node) == 3


def test_the_table_is_for_people(monkeypatch, tmp_path, capsys):
    tiny_network.install(monkeypatch)
    assert graph.main(["--backbone", tiny_network.NAME, "--weights", "random"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "network:"
    assert lines[1].split() == ["layer", "op", "output", "parameters"]
    assert "? x 37 x 37 x 8" in lines[3]
    assert lines[-2].endswith(f"layers, {tiny_network.build().count_params():,} parameters")
    assert len({len(line) for line in lines[1:-2]}) == 1


def test_a_model_has_its_network_and_its_head(model_dir, tmp_path, capsys):
    found = layers(capsys, "--model_dir", model_dir, "--log_dir", str(tmp_path))
    head = [layer for layer in found if layer["part"] == "head"]
    # Standardization (mean and variance), a hidden layer and the logits.
    parameters = 2 * EMBEDDING_SIZE + (EMBEDDING_SIZE + 1) * 8 + (8 + 1) * 3
    assert sum(layer["parameters"] for layer in head) == parameters
    network = [layer for layer in found if layer["part"] == "network"]
    assert sum(layer["parameters"] for layer in network) == parameters + tiny_network.build().count_params()
    assert [layer["op"] for layer in head[-1:]] == ["Softmax"]
    assert not [layer["name"] for layer in found if "PartitionedCall" in layer["name"]]
    written = graph_in(tmp_path / "network")
    assert "final_result" in {node.name for node in written.node}
    assert written.ByteSize() < 50_000
    assert {node.op for node in graph_in(tmp_path / "head").node} >= {"MatMul", "Softmax"}


def test_a_model_of_embeddings_is_its_head(tmp_path, capsys):
    from trainer.export.saved_model import save_model

    path = str(tmp_path / "model")
    save_model(path, backbone=None, head=build_classifier()[1], labels=LABELS, identity=IDENTITY)
    assert {layer["part"] for layer in layers(capsys, "--model_dir", path)} == {"head"}


def test_a_network_from_a_file_shows_its_operations(tmp_path, capsys):
    path = str(tmp_path / "network.pb")
    with tf.Graph().as_default() as made:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 16, 16, 3], name="input")
        kernel = tf.constant(np.ones((3, 3, 3, 5), np.float32), name="kernel")
        tf.reduce_mean(tf.nn.conv2d(pixels, tf.identity(kernel), 2, "SAME", name="conv"), [1, 2], name="features")
    with open(path, "wb") as stream:
        stream.write(made.as_graph_def().SerializeToString())
    flags = ["--backbone", path, "--output_tensor", "features", "--scaling", "tf"]
    found = {layer["name"]: layer for layer in layers(capsys, *flags)}
    assert (found["conv"]["op"], found["conv"]["parameters"]) == ("Conv2D", 135)
    assert found["conv"]["shape"] == [None, 8, 8, 5]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone", "incepton_v3"], "Did you mean 'inception_v3'"),
        (["--model_dir", "/nowhere"], "there is no folder /nowhere"),
        (["--model_dir", "m", "--seed", "3"], "--seed: a model in --model_dir has its own network"),
    ],
)
def test_wrong_input_is_one_line(flags, message):
    with pytest.raises(InputError, match=message) as caught:
        graph.main(flags)
    assert len(str(caught.value).splitlines()) == 1


def test_a_log_that_cannot_be_written(monkeypatch):
    tiny_network.install(monkeypatch)
    with pytest.raises(InputError, match="--log_dir"):
        graph.main(["--backbone", tiny_network.NAME, "--weights", "random", "--log_dir", "/dev/null/logs"])


def test_training_writes_the_graph_of_the_head_and_its_weights(task_arguments, mean_colour_backbone, tmp_path):
    task.main([*task_arguments, "--log_dir", str(tmp_path / "logs")])
    found = {}
    for event in events(tmp_path / "logs" / "train"):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "histograms":
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    weights = {"hidden/kernel": 3 * 16, "hidden/bias": 16, "logits/kernel": 16 * 3, "logits/bias": 3}
    weights = {f"head/{name}": count for name, count in weights.items()}
    assert {tag for tag, _ in found} == set(weights)
    assert {step for _, step in found} == {20, 40, 60}
    for (tag, _), buckets in found.items():
        assert buckets.shape[1] == 3
        assert buckets[:, 2].sum() == weights[tag]
    assert {"MatMul", "Relu"} <= {node.op for node in graph_in(tmp_path / "logs" / "train").node}
