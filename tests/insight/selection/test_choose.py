from __future__ import annotations

import numpy as np
import pytest

from insight.selection import choose as module
from insight.selection.choose import choose, head_scores, importance
from insight.selection.expected_gain import expected_gain

CENTRES = np.random.default_rng(7).normal(size=(6, 12)) * 2


def photos_of(classes, *, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    return CENTRES[classes] + noise * random.normal(size=(len(classes), 12))


def test_without_labels_one_photo_of_each_heap_is_chosen_and_stands_for_the_others():
    classes = np.repeat(np.arange(6), [10, 20, 30, 5, 15, 40])
    choice = choose(photos_of(classes, noise=0.1), None, np.zeros(3, np.int64), 6)
    assert sorted(classes[choice.rows]) == [0, 1, 2, 3, 4, 5]
    assert choice.stands_for.tolist() == np.bincount(classes)[classes[choice.rows]].tolist() == [40, 30, 20, 15, 10, 5]
    assert set(choice.proposed) == {-1} and np.isnan(choice.scores).all()


def test_photos_of_which_the_head_is_unsure_are_chosen_before_sure_ones():
    labelled = np.repeat([0, 1], 20)
    # Half of the photos lie between both classes.
    sure = photos_of(np.repeat([0, 1], 50), seed=1)
    unsure = photos_of(np.repeat([0, 1], 50), seed=2) * 0.1 + CENTRES[:2].mean(axis=0)
    features = np.concatenate([photos_of(labelled), sure, unsure])
    scores = head_scores(features, np.arange(40), labelled, 2)
    choice = choose(features[40:], scores[40:], np.array([20, 20]), 10)
    assert (choice.rows[:5] >= 100).all() and (choice.rows >= 100).sum() >= 6
    assert len(set(choice.rows.tolist())) == 10 and choice.stands_for.sum() == 200
    assert (choice.scores[choice.rows >= 100] < 0.9).all()


def test_a_photo_of_a_rare_class_weighs_more():
    scores = np.array([[0.6, 0.4], [0.4, 0.6]])
    first, second = importance(scores, np.array([50, 2]), 2)
    assert second > first > 0
    assert np.allclose(*importance(scores, np.array([20, 20]), 2))


def test_the_same_seed_chooses_the_same_and_all_are_chosen_where_there_are_fewer():
    features = photos_of(np.repeat(np.arange(6), 10))
    nothing = np.zeros(2, np.int64)
    first, second = (choose(features, None, nothing, 7, seed=3) for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist()
    assert sorted(choose(features, None, nothing, 100).rows) == list(range(60))
    assert head_scores(features, np.arange(5), np.zeros(5, np.int64), 2) is None


def test_equal_photos_still_give_as_many_as_asked():
    choice = choose(np.ones((20, 4)), None, np.zeros(2, np.int64), 5)
    assert len(set(choice.rows.tolist())) == 5 and choice.stands_for.sum() == 20


def test_of_very_many_photos_a_sample_is_clustered(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CLUSTERED", 50)
    scores = np.full((400, 2), 0.5)
    scores[:200] = [1, 0]
    choice = choose(photos_of(np.arange(400) % 6), scores, np.array([5, 5]), 10)
    assert len(set(choice.rows.tolist())) == 10 and (choice.rows >= 200).all()


def test_the_learning_curve_is_continued_within_its_interval():
    classes = np.arange(400) % 6
    features = photos_of(classes, noise=3.0)
    gain = expected_gain(features[:120], classes[:120], 80, num_labels=6)
    low, high = gain.expected_interval
    assert low <= gain.expected <= high and gain.expected >= gain.accuracy
    test = photos_of(classes, noise=3.0, seed=9)
    reached = (head_scores(np.concatenate([features[:200], test]), np.arange(200), classes[:200], 6)[200:]).argmax(1)
    assert low <= (reached == classes).mean() <= high
    assert gain.gain_interval[0] >= 0


@pytest.mark.parametrize(("count", "classes"), [(19, 2), (40, 1)])
def test_too_little_to_measure_a_curve_gives_none(count, classes):
    labels = np.arange(count) % classes
    assert expected_gain(photos_of(labels), labels, 10, num_labels=2) is None
