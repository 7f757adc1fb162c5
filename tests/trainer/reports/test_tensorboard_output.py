from __future__ import annotations

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image

from tests.support.evaluation_sets import dataset, noisy
from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings
from trainer.evaluation.metrics import evaluate
from trainer.reports.tensorboard_output import confusion_picture, write_evaluation, write_projector
from trainer.training.event_log import EventLog


def summaries(log_dir) -> dict[str, tf.compat.v1.Summary.Value]:
    (name,) = os.listdir(log_dir)
    values = {}
    for record in tf.data.TFRecordDataset(os.path.join(log_dir, name)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert event.step == 75
            values[value.tag] = value
    return values


def test_measures_pictures_and_curves(tmp_path):
    evaluation = evaluate(*noisy(200))
    log_dir = str(tmp_path / "final_eval")
    EventLog(log_dir).close()
    write_evaluation(log_dir, evaluation, step=75)  # Replaces what is there.
    found = summaries(log_dir)
    accuracy = found["final/accuracy"]
    assert accuracy.metadata.plugin_data.plugin_name == "scalars"
    assert float(tf.make_ndarray(accuracy.tensor)) == np.float32(evaluation.numbers["accuracy"])
    assert found["confusion_matrix"].metadata.plugin_data.plugin_name == "images"
    width, height, png = tf.make_ndarray(found["confusion_matrix"].tensor)
    assert Image.open(io.BytesIO(png)).size == (int(width), int(height))

    curve = found["precision_recall/2 blue"]
    assert curve.metadata.plugin_data.plugin_name == "pr_curves"
    # What tensorboard's PrCurvePluginData(num_thresholds=201) serializes to.
    assert curve.metadata.plugin_data.content == b"\x10\xc9\x01"
    right, wrong, true_negatives, missed, precision, recall = tf.make_ndarray(curve.tensor)
    assert precision.shape == (201,)
    row = evaluation.numbers["per_class"][2]
    assert (right + missed == row["support"]).all()
    assert (right + wrong + true_negatives + missed == 200).all()
    assert recall[0] == 1
    np.testing.assert_allclose(precision[100], right[100] / (right[100] + wrong[100]))


def test_many_classes_have_no_picture_and_few_curves(tmp_path):
    labels = tuple(f"a/{i}" for i in range(120))
    data = dataset(*([i] for i in range(120)), labels=labels)
    evaluation = evaluate(np.eye(120, dtype=np.float32), data)
    write_evaluation(str(tmp_path), evaluation, step=75)
    found = summaries(str(tmp_path))
    assert "confusion_matrix" not in found
    curves = [tag for tag in found if tag.startswith("precision_recall/")]
    assert (len(curves), curves[1]) == (50, "precision_recall/1 a_1")


def test_the_picture_holds_any_label():
    picture = confusion_picture(["猫" * 40, "", "ж"], [[3, 0, 1], [0, 0, 0], [0, 0, 9999]])
    assert picture.size[0] == picture.size[1] > 3 * 44


def embedded(points: np.ndarray) -> EmbeddingDataset:
    count = len(points)
    return EmbeddingDataset(
        uris=np.array([f"a\tb\n{i}.jpg" for i in range(count)], dtype=object),
        embeddings=MemoryEmbeddings(points),
        label_ids=np.arange(count) % 2,
        label_splits=np.arange(count + 1),
        labels=("tab\there", "other"),
        num_unlabeled=0,
    )


def test_the_projector_gets_points_at_their_distances_with_names(tmp_path):
    points = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    write_projector(str(tmp_path), embedded(points), ["other"] * 30)
    written = np.loadtxt(tmp_path / "embeddings.tsv")
    assert written.shape == (30, 30)
    distance = np.linalg.norm(written[3] - written[17])
    np.testing.assert_allclose(distance, np.linalg.norm(points[3] - points[17]), rtol=1e-2)
    lines = (tmp_path / "names.tsv").read_text().splitlines()
    assert lines[:2] == ["label\tprediction\turi", "tab here\tother\ta b 0.jpg"]
    assert len(lines) == 31
    assert 'tensor_path: "embeddings.tsv"' in (tmp_path / "projector_config.pbtxt").read_text()


def test_of_many_points_the_projector_gets_a_sample(tmp_path):
    write_projector(
        str(tmp_path), embedded(np.random.default_rng(0).normal(size=(5000, 60)).astype(np.float32)), ["other"] * 5000
    )
    assert len((tmp_path / "names.tsv").read_text().splitlines()) == 2001
