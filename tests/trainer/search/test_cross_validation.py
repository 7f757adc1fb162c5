from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.embedded_clusters import clusters, dataset, in_views, small_options
from trainer.data.embeddings import StreamedEmbeddings
from trainer.search import cross_validation
from trainer.search.cross_validation import (
    ALWAYS_TRAINS,
    assign_folds,
    cross_validate,
    fit_for,
    sample_in_memory,
    take_rows,
)


def test_folds_hold_as_many_of_each_class_and_are_of_one_size():
    classes = [0] * 23 + [1] * 41 + [2] * 6
    data = dataset(np.zeros((70, 2)), [[c] for c in classes], 3)
    folds = assign_folds(data, 5, seed=1)
    assert np.bincount(folds).tolist() == [14] * 5
    counts = np.array([np.bincount(folds[data.first_label_ids == c], minlength=5) for c in range(3)])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert (folds == assign_folds(data, 5, seed=1)).all()
    assert (folds != assign_folds(data, 5, seed=2)).any()


def test_the_only_image_of_a_class_always_trains():
    data = dataset(np.zeros((12, 2)), [[0]] * 10 + [[1], [0, 2]], 3)
    folds = assign_folds(data, 2, seed=0)
    assert folds[10:].tolist() == [ALWAYS_TRAINS] * 2
    assert (folds[:10] >= 0).all()


def test_examples_of_one_uri_fall_into_one_fold():
    data = dataset(np.zeros((40, 2)), [[i % 2] for i in range(40)], 2)
    data = dataclasses.replace(data, uris=np.array([f"image {i // 4}" for i in range(40)], dtype=object))
    folds = assign_folds(data, 3, seed=0).reshape(10, 4)
    assert (folds == folds[:, :1]).all()
    assert set(folds.ravel()) == {0, 1, 2}


def test_too_few_examples_for_the_folds_are_refused():
    with pytest.raises(InputError, match="--tune: 4 training images"):
        assign_folds(dataset(np.zeros((5, 2)), [[0], [0], [1], [1], [2]], 3), 5, seed=0)


def test_rows_keep_their_labels_in_memory_and_streamed():
    embeddings = np.arange(24, dtype=np.float32).reshape(12, 2)
    data = dataset(embeddings, [[i % 3] if i % 4 else [0, 2] for i in range(12)], 3)
    streamed = StreamedEmbeddings(
        lambda order: (
            (np.arange(5 * part, min(12, 5 * part + 5)), embeddings[5 * part : 5 * part + 5]) for part in order
        ),
        num_parts=3,
        shape=(12, 2),
        statistics=data.embeddings.feature_statistics(),
        pool_rows=4,
    )
    rows = np.array([0, 3, 4, 9, 11])
    for source in (data.embeddings, streamed):
        taken = take_rows(dataclasses.replace(data, embeddings=source), rows)
        assert (taken.embeddings.array == embeddings[rows]).all()
        assert taken.uris.tolist() == data.uris[rows].tolist()
        assert (taken.label_sets() == data.label_sets()[rows]).all()


def test_samples_hold_as_many_examples_as_memory_allows(monkeypatch):
    data = clusters(60, 0)
    assert sample_in_memory(data, small_options()).uris.tolist() == data.uris.tolist()
    monkeypatch.setattr(cross_validation, "_MAX_EXAMPLES", 30)
    sample = sample_in_memory(data, small_options())
    assert len(sample) == 30
    assert set(sample.uris) < set(data.uris)
    wide = dataset(np.zeros((30, 1 << 12)), [[i % 2] for i in range(30)], 2)
    assert len(sample_in_memory(wide, small_options(max_memory_mb=1))) == 16
    assert len(sample_in_memory(in_views(wide, count=4), small_options(max_memory_mb=1))) == 4
    monkeypatch.setattr(cross_validation, "_MAX_EMBEDDINGS", 40)
    assert len(sample_in_memory(in_views(wide, count=4), small_options())) == 10


def test_folds_train_on_all_views_and_are_tested_on_view_0(monkeypatch):
    data = in_views(clusters(40, 0))
    views = np.concatenate(list(data.embeddings.view_pieces()))
    rows = np.array([0, 3, 17, 39])
    np.testing.assert_array_equal(np.concatenate(list(take_rows(data, rows).embeddings.view_pieces())), views[rows])
    seen = []
    real = cross_validation.train_head

    def spy(train, held_out, options, **more):
        seen.append((train.embeddings.num_views, held_out.embeddings.num_views))
        return real(train, held_out, options, **more)

    monkeypatch.setattr(cross_validation, "train_head", spy)
    cross_validate(data, assign_folds(data, 2, seed=0), small_options(max_steps=2))
    assert seen == [(4, 1), (4, 1)]


def test_every_example_is_judged_without_having_been_trained_on(monkeypatch):
    data = clusters(60, 0)
    folds = assign_folds(data, 3, seed=0)
    seen = []
    real = cross_validation.train_head

    def spy(train, held_out, options, **more):
        seen.append((set(train.uris), set(held_out.uris)))
        return real(train, held_out, options, **more)

    monkeypatch.setattr(cross_validation, "train_head", spy)
    found = cross_validate(data, folds, small_options(max_steps=40, eval_every_steps=20))
    assert [len(train & held) for train, held in seen] == [0, 0, 0]
    assert set.union(*(held for _, held in seen)) == set(data.uris)
    assert found.steps == 40
    assert found.losses.shape == found.accuracies.shape == (3,)
    assert found.accuracies.mean() > 0.9
    assert not found.given_up


def test_hopeless_folds_are_left_out():
    data = clusters(60, 0)
    found = cross_validate(
        data,
        assign_folds(data, 3, seed=0),
        small_options(max_steps=20),
        hopeless=lambda so_far: len(so_far.losses) == 2,
    )
    assert found.given_up
    assert found.losses.shape == (2,)


def test_a_fit_for_so_many_steps_ends_there_and_takes_the_last():
    train, held_out = clusters(60, 0), dataset(np.zeros((2, 32)), [[0], [1]], 4)
    result = fit_for(37, train, held_out, small_options(max_steps=500, early_stopping=1, eval_every_steps=2))
    assert result.best.step == 37
    assert len(result.history) == 1
