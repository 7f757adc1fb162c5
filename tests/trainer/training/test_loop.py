from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import InputError
from tests.support.embedded_clusters import dataset
from trainer.data.dataset import EmbeddingDataset
from trainer.evaluation.metrics import measure
from trainer.options import OPTIMIZERS, TrainingOptions
from trainer.training.batches import group_steps
from trainer.training.checkpoints import NO_SAVING
from trainer.training.head import build_head, head_digest, predict_logits, standardization
from trainer.training.loop import train_head

STYLE = "../shared/data/inception_v3_bottlenecks/style.npz"


def clusters(num_examples: int, seed: int, *, common: float = 0.0, spread: float = 1.0) -> EmbeddingDataset:
    """Four clusters in 32 dimensions; `common` is added to all, then everything is scaled by `spread`."""
    centres = np.random.default_rng(99).normal(0, 1, (4, 32))
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, num_examples)
    embeddings = common + spread * (centres[classes] + rng.normal(0, 0.5, (num_examples, 32)))
    return dataset(embeddings, [[int(c)] for c in classes], 4)


@pytest.fixture
def options(tmp_path):
    return TrainingOptions(
        train_data_paths=("t",),
        eval_data_paths=("e",),
        output_path=str(tmp_path),
        max_steps=100,
        hidden_units=32,
        batch_size=50,
        learning_rate=1e-2,
    )


def test_learns_what_can_be_separated(options):
    result = train_head(clusters(200, 0), clusters(100, 1), options)
    assert result.best.eval_accuracy > 0.97
    assert result.history[-1].step == 100


def test_learns_from_a_tiny_variance_on_a_big_common_mean(options):
    data = [clusters(200, 0, common=5.0, spread=1e-3), clusters(100, 1, common=5.0, spread=1e-3)]
    assert train_head(*data, options).best.eval_accuracy > 0.97
    raw = train_head(*data, dataclasses.replace(options, standardize=False))
    assert raw.best.eval_accuracy < 0.6


def test_a_straight_softmax(options):
    result = train_head(clusters(200, 0), clusters(100, 1), dataclasses.replace(options, hidden_units=0))
    assert result.best.eval_accuracy > 0.97
    assert "hidden" not in [layer.name for layer in result.head.layers]


def test_the_same_seed_gives_the_same_model_and_another_another(options):
    data = clusters(150, 0), clusters(50, 1)
    one, again, other = (train_head(*data, dataclasses.replace(options, seed=seed, max_steps=30)) for seed in (3, 3, 4))
    assert head_digest(one.head) == head_digest(again.head)
    assert one.history == again.history
    assert head_digest(one.head) != head_digest(other.head)


def test_several_labels_a_row_can_be_trained(options):
    single = clusters(200, 0)
    both = [[int(c), 4] for c in single.first_label_ids]
    train = dataset(single.embeddings.array, both, 5)
    result = train_head(train, train, options)
    scores = tf.nn.softmax(predict_logits(result.head, train.embeddings.pieces())).numpy()
    assert measure(np.log(scores), train).accuracy > 0.99
    assert scores[:, 4].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(options, optimizer):
    learning_rate = 0.1 if optimizer == "sgd" else 0.01
    options = dataclasses.replace(options, optimizer=optimizer, learning_rate=learning_rate, max_steps=80)
    assert train_head(clusters(200, 0), clusters(100, 1), options, saving=NO_SAVING).best.eval_accuracy > 0.97


def test_several_labels_are_learned_each_by_itself(options):
    """Two independent questions of an image: which half in either of two directions, and a class that all have."""
    rng = np.random.default_rng(0)

    def several(num_examples):
        embeddings = rng.normal(size=(num_examples, 8))
        ids = [[*np.flatnonzero(row[:2] > 0), 2] for row in embeddings]
        return dataclasses.replace(dataset(embeddings, ids, 3), label_mode="multi")

    train, held_out = several(600), several(200)
    run = dataclasses.replace(options, max_steps=300, hidden_units=0, dropout=0.0, learning_rate=0.1)
    result = train_head(train, held_out, run, saving=NO_SAVING)
    logits = predict_logits(result.head, held_out.embeddings.pieces())
    assert ((logits > 0) == held_out.label_sets()).mean() > 0.97
    assert logits[:, 2].min() > 0
    expected = tf.nn.sigmoid_cross_entropy_with_logits(held_out.targets(np.arange(200)), logits)
    assert result.best.eval_loss == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)


def test_balanced_classes_are_found_more_often(options):
    rng = np.random.default_rng(0)
    embeddings = np.concatenate([rng.normal(0, 1, (190, 2)), rng.normal(1, 1, (10, 2))])
    data = dataset(embeddings, [[0]] * 190 + [[1]] * 10, 2)
    found = {}
    for weights in ("none", "balanced"):
        run = dataclasses.replace(options, class_weights=weights, hidden_units=0, dropout=0.0)
        logits = predict_logits(train_head(data, data, run, saving=NO_SAVING).head, [data.embeddings.array])
        found[weights] = int(logits[190:].argmax(axis=1).sum())
    assert found["balanced"] >= 8
    assert found["none"] <= 4


def test_a_penalty_keeps_weights_small(options):
    run = dataclasses.replace(options, hidden_units=0, dropout=0.0, max_steps=60)
    data = clusters(200, 0), clusters(100, 1)
    free, held = (train_head(*data, dataclasses.replace(run, l2=l2), saving=NO_SAVING) for l2 in (0.0, 0.1))
    assert np.square(held.head.get_weights()[0]).sum() < 0.2 * np.square(free.head.get_weights()[0]).sum()


def test_epochs_decide_the_number_of_steps(options):
    run = dataclasses.replace(options, epochs=3)
    assert train_head(clusters(120, 0), clusters(50, 1), run, saving=NO_SAVING).history[-1].step == 8  # 360 / 50


def test_training_stops_when_the_loss_on_eval_no_longer_falls(options):
    noise = [dataset(np.random.default_rng(i).normal(size=(20, 32)), [[0], [1]] * 10, 2) for i in range(2)]
    run = dataclasses.replace(options, early_stopping=3, eval_every_steps=5, max_steps=400)
    result = train_head(*noise, run, saving=NO_SAVING)
    assert result.stopped_early
    assert [point.step for point in result.history[-4:]] == [result.best.step + 5 * i for i in range(4)]
    assert result.best.eval_loss == min(point.eval_loss for point in result.history)
    assert not train_head(
        *noise, dataclasses.replace(run, early_stopping=0, max_steps=40), saving=NO_SAVING
    ).stopped_early


def test_nothing_need_be_written(options, tmp_path):
    train_head(clusters(100, 0), clusters(50, 1), dataclasses.replace(options, max_steps=5), saving=NO_SAVING)
    assert not os.listdir(tmp_path)


def test_labels_that_all_examples_have_are_refused(options):
    same = dataclasses.replace(dataset(np.ones((3, 32)), [[0, 1]] * 3, 4), label_mode="multi")
    with pytest.raises(InputError, match="have the same labels"):
        train_head(same, same, options)


def test_the_exported_weights_are_those_of_the_best_checkpoint(options):
    # So few examples and so long a run that the loss on the held-out ones turns up again.
    rng = np.random.default_rng(0)
    noise = [dataset(rng.normal(size=(20, 32)), [[i % 2] for i in range(20)], 2) for _ in range(2)]
    options = dataclasses.replace(options, eval_every_steps=10)
    result = train_head(*noise, options)
    assert result.best.eval_loss == min(point.eval_loss for point in result.history)
    assert result.best.step < 100
    assert measure(predict_logits(result.head, noise[1].embeddings.pieces()), noise[1]).loss == result.best.eval_loss
    folder = os.path.join(options.output_path, "checkpoints")
    assert tf.train.latest_checkpoint(f"{folder}/best").endswith(f"-{result.best.step}")
    assert tf.train.latest_checkpoint(f"{folder}/last").endswith("-100")


def test_a_checkpoint_can_be_restored(options):
    train, evaluation = clusters(100, 0), clusters(50, 1)
    result = train_head(train, evaluation, options)
    head = build_head(
        embedding_size=32,
        num_classes=4,
        hidden_units=32,
        seed=77,
        mean_and_variance=standardization(train.embeddings.feature_statistics()),
    )
    path = tf.train.latest_checkpoint(os.path.join(options.output_path, "checkpoints", "best"))
    tf.train.Checkpoint(head=head).restore(path).expect_partial()
    assert head_digest(head) == head_digest(result.head)


def test_logs_hold_scalars_and_those_of_an_earlier_run_are_gone(options):
    for _ in range(2):
        train_head(clusters(100, 0), clusters(50, 1), dataclasses.replace(options, eval_every_steps=40))
    (event_file,) = tf.io.gfile.glob(os.path.join(options.output_path, "logs", "eval", "*"))
    found = [
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(event_file)
        for value in event.summary.value
    ]
    assert found == [(tag, step) for step in (40, 80, 100) for tag in ("loss", "accuracy")]


def test_one_class_is_refused(options):
    one = dataset(np.ones((3, 32)), [[1], [1], [1]], 4)
    with pytest.raises(InputError, match="all 3 labelled examples are 'label 1'"):
        train_head(one, clusters(10, 1), options)


def test_divergence_is_told(options):
    with pytest.raises(InputError, match="Lower --learning_rate"):
        train_head(clusters(100, 0), clusters(10, 1), dataclasses.replace(options, learning_rate=1e38, max_steps=50))


def test_blocks_end_at_evaluations_and_hold_no_more_than_they_may():
    steps, sizes = 0, []
    while steps < 60:
        sizes.append(group_steps(steps, batch_bytes=3 << 20, max_steps=60, eval_every_steps=25))
        steps += sizes[-1]
    assert sizes == [8, 8, 8, 1, 8, 8, 8, 1, 8, 2]
    assert group_steps(0, batch_bytes=1 << 30, max_steps=60, eval_every_steps=25) == 1


@pytest.mark.skipif(not os.path.exists(STYLE), reason="the shared embeddings are not here")
def test_real_imagenet_embeddings(options):
    """Eight styles, a hard task: logistic regression reaches 0.52, the majority class 0.155."""
    with np.load(STYLE) as stored:
        embeddings, classes = stored["embedding"], stored["label"]
    order = np.random.default_rng(0).permutation(len(classes))
    parts = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    train, evaluation = (dataset(embeddings[rows], [[int(c)] for c in classes[rows]], 8) for rows in parts)
    options = dataclasses.replace(options, hidden_units=512, learning_rate=1e-3, batch_size=100, max_steps=200)
    assert train_head(train, evaluation, options).best.eval_accuracy > 0.45
