"""Frozen graphs as retrain.py wrote them: exported with the model's scores, and read as label_image did."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.images.decode import decode_image
from tests.support.classifiers import IDENTITY, LABELS, build_classifier, jpeg
from tests.support.programs import end_program, start_program
from trainer import export_frozen, predict

pytestmark = pytest.mark.usefixtures("models_loaded_once")

tf = import_tensorflow()
SHARED = os.path.join(os.path.dirname(__file__), "..", "..", "..", "shared")
MOBILENET = os.path.join(SHARED, "models", "mobilenet_v1_0.25_128", "frozen_graph.pb")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    from trainer.export.saved_model import save_model

    path = str(tmp_path_factory.mktemp("training") / "model")
    backbone, head = build_classifier()
    save_model(path, backbone=backbone, head=head, labels=LABELS, identity=IDENTITY, temperature=1.7, threshold=0.5)
    return path


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory):
    """(graph, labels)."""
    folder = tmp_path_factory.mktemp("exported")
    files = str(folder / "output_graph.pb"), str(folder / "output_labels.txt")
    arguments = ["--model_dir", model_dir, "--output_graph", files[0], "--output_labels", files[1]]
    assert export_frozen.main(arguments) == 0
    return files


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number in range(3):
        paths.append(str(folder / f"{number}.jpg"))
        with open(paths[-1], "wb") as stream:
            stream.write(jpeg(number))
    return paths


def answers(capsys, *flags):
    assert predict.main([*flags, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def scores_of(answer):
    return [prediction["score"] for prediction in sorted(answer["predictions"], key=lambda entry: entry["id"])]


def label_image(graph_file, pixels, *, input_layer, output_layer, mean, std):
    """What TensorFlow's label_image does once it has decoded and resized an image."""
    graph_def = tf.compat.v1.GraphDef()
    with open(graph_file, "rb") as stream:
        graph_def.ParseFromString(stream.read())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def)
    source = graph.get_operation_by_name(f"import/{input_layer}").outputs[0]
    target = graph.get_operation_by_name(f"import/{output_layer}").outputs[0]
    with tf.compat.v1.Session(graph=graph) as session:
        return np.squeeze(session.run(target, {source: (pixels[np.newaxis].astype(np.float32) - mean) / std}))


def test_label_image_gets_the_scores_of_predict(model_dir, exported, photos, capsys):
    wanted = answers(capsys, "--model_dir", model_dir, *photos)
    for photo, answer in zip(photos, wanted, strict=True):
        with open(photo, "rb") as stream:
            pixels = decode_image(stream.read())
        scores = label_image(
            exported[0], pixels, input_layer="Placeholder", output_layer="final_result", mean=0, std=255
        )
        assert np.abs(scores - scores_of(answer)).max() < 1e-6
    assert len({tuple(scores_of(answer)) for answer in wanted}) == len(photos)
    with open(exported[1], encoding="utf-8") as stream:
        assert stream.read() == "".join(f"{label}\n" for label in LABELS)


def test_the_graph_is_small_and_constant(exported):
    with open(exported[0], "rb") as stream:
        graph = tf.compat.v1.GraphDef.FromString(stream.read())
    ops = {node.op for node in graph.node}
    assert not ops & {"DecodeJpeg", "DecodePng", "While", "Switch", "Merge", "VarHandleOp", "ReadVariableOp"}
    assert [node.name for node in graph.node if node.op == "Placeholder"] == ["Placeholder"]
    assert not graph.library.function


def test_predict_reads_what_was_exported(model_dir, exported, photos, capsys):
    wanted = answers(capsys, "--model_dir", model_dir, *photos)
    found = answers(capsys, "--graph", exported[0], "--labels", exported[1], *photos)
    for ours, theirs in zip(wanted, found, strict=True):
        assert np.allclose(scores_of(ours), scores_of(theirs), atol=1e-6)
        assert [p["label"] for p in ours["predictions"]] == [p["label"] for p in theirs["predictions"]]
    flags = ["--input_layer=Placeholder", "--output_layer=final_result", "--input_height=299", "--input_width=299"]
    said = answers(capsys, "--graph", exported[0], "--labels", exported[1], *flags, "--input_std=255", *photos)
    assert said == found


def test_files_that_are_there_stay(model_dir, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "output_graph.pb"
    old.write_bytes(b"of 2017")
    with pytest.raises(InputError, match=r"--output_graph: output_graph.pb is there already. Pass --overwrite"):
        export_frozen.main(["--model_dir", model_dir])
    assert old.read_bytes() == b"of 2017"
    assert not (tmp_path / "output_labels.txt").exists()
    assert export_frozen.main(["--model_dir", model_dir, "--overwrite", "--final_tensor_name", "softmax"]) == 0
    assert b"softmax" in old.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output_graph", "/"], "--output_graph: must be a file"),
        (["--output_graph", "a", "--output_labels", "a"], "same file"),
        (["--output_graph", "/dev/null/a.pb"], "--output_graph: cannot write"),
        (["--final_tensor_name", "Placeholder"], "is the name of another operation"),
        (["--model_dir", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_wrong_exports_are_one_line(model_dir, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        export_frozen.main(["--model_dir", model_dir, *flags])
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_of_embeddings_has_no_pixels(tmp_path):
    from trainer.export.saved_model import save_model

    path = str(tmp_path / "model")
    save_model(path, backbone=None, head=build_classifier()[1], labels=LABELS, identity=IDENTITY)
    with pytest.raises(InputError, match="takes embeddings and no photos"):
        export_frozen.main(["--model_dir", path, "--output_graph", str(tmp_path / "a.pb")])


@pytest.fixture(scope="module")
def old_graph(tmp_path_factory):
    """A graph in the manner of 2017: `input` to `final_result`, one image at a time, twice as wide as high."""
    path = str(tmp_path_factory.mktemp("old") / "retrained_graph.pb")
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, [1, 20, 40, 3], name="input")
        means = tf.reshape(tf.reduce_mean(pixels, [1, 2]), [1, 3], name="bottleneck")
        tf.nn.softmax(tf.matmul(means, tf.constant(np.eye(3, dtype=np.float32) * 5)), name="final_result")
    with open(path, "wb") as stream:
        stream.write(graph.as_graph_def().SerializeToString())
    with open(os.path.join(os.path.dirname(path), "labels.txt"), "w", encoding="utf-8") as stream:
        stream.write("red\ngreen\nblue\n")
    return path


def test_a_graph_of_one_image_that_is_no_square(old_graph, tmp_path, capsys):
    photos = []
    for name, colour in (("red", (230, 60, 60)), ("green", (60, 230, 60)), ("blue", (60, 60, 230))):
        photos.append(str(tmp_path / f"{name}.png"))
        Image.new("RGB", (400, 300), colour).save(photos[-1])
    labels = os.path.join(os.path.dirname(old_graph), "labels.txt")
    flags = ["--input_mean=128", "--input_std=128"]
    found = answers(capsys, "--graph", old_graph, "--labels", labels, *flags, *photos)
    assert [answer["predictions"][0]["label"] for answer in found] == ["red", "green", "blue"]
    pixels = np.full((20, 40, 3), (230, 60, 60), np.uint8)
    wanted = label_image(old_graph, pixels, input_layer="input", output_layer="final_result", mean=128, std=128)
    assert np.allclose(scores_of(found[0]), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--graph", "nowhere.pb"], r"--graph: nowhere.pb cannot be read"),
        (["--graph", __file__], r"--graph: .* is no frozen graph"),
        (["--graph", "ANY_SIZE"], r"--input_height: .* does not say which size"),
        (["--graph", "ANY_SIZE", "--input_height", "9999", "--input_width", "9999"], "at most 1024"),
        (["--graph", "GRAPH", "--input_height", "24"], r"takes images of 20 x 40 pixels. Received: 24"),
        (["--graph", "GRAPH", "--input_layer", "inptu"], r"--input_layer: .* Did you mean 'input'"),
        (
            ["--graph", "GRAPH", "--input_height", "20", "--input_width", "40", "--output_layer", "final_reslt"],
            r"--output_layer: .* Did you mean 'final_result:0'",
        ),
        (
            ["--graph", "GRAPH", "--input_height", "20", "--input_width", "40"],
            "--labels: the network has 3 classes, so they are not ImageNet's 1000",
        ),
        (
            ["--graph", "GRAPH", "--input_height", "20", "--input_width", "40", "--labels", "ONE"],
            "names 1 classes, and the network has 3",
        ),
        (["--graph", "GRAPH", "--model_dir", "m"], "one of the two"),
        ([], "one of the two"),
        (["--model_dir", "m", "--input_mean", "1"], "--input_mean: belongs to a --graph"),
    ],
)
def test_wrong_graphs_are_one_line(old_graph, tmp_path, flags, message):
    (tmp_path / "one.txt").write_text("red\n")
    graph = tf.compat.v1.GraphDef()
    with open(old_graph, "rb") as stream:
        graph.ParseFromString(stream.read())
    del graph.node[0].attr["shape"]
    (tmp_path / "any.pb").write_bytes(graph.SerializeToString())
    words = {"GRAPH": old_graph, "ANY_SIZE": str(tmp_path / "any.pb"), "ONE": str(tmp_path / "one.txt")}
    with pytest.raises(InputError, match=message) as caught:
        predict.main([*(words.get(flag, flag) for flag in flags), "photo.jpg"])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not os.path.exists(MOBILENET), reason="the shared frozen graph is not here")
def test_a_real_graph_with_the_names_of_imagenet(photos, capsys):
    flags = ["--graph", MOBILENET, "--output_layer", "MobilenetV1/Predictions/Reshape_1"]
    (answer, *_) = answers(capsys, *flags, "--input_mean=127.5", "--input_std=127.5", "--top_k=1001", *photos)
    with open(photos[0], "rb") as stream:
        pixels = decode_image(stream.read(), size=128)
    names = {"input_layer": "input", "output_layer": flags[-1]}
    wanted = label_image(MOBILENET, pixels, **names, mean=127.5, std=127.5)
    assert np.abs(np.array(scores_of(answer)) - wanted).max() < 1e-5
    assert answer["predictions"][0]["label"] not in ("", "class 0")


def test_the_program_says_what_it_wrote(model_dir, tmp_path):
    command = ["-m", "trainer.export_frozen", "--model_dir", model_dir]
    files = ["--output_graph", str(tmp_path / "g.pb"), "--output_labels", str(tmp_path / "l.txt")]
    stdout, stderr = end_program(start_program([*command, *files], tensorflow=True))
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[0].startswith(f"written: {tmp_path / 'g.pb'} (")
    assert "--input_layer=Placeholder --output_layer=final_result --input_height=299" in stdout
    assert lines[-1].startswith("next: ")
