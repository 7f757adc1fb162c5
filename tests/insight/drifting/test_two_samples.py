from __future__ import annotations

import numpy as np

from insight.drifting.causes import channels_look_swapped, mix_changes
from insight.drifting.two_samples import class_mix, compare_embeddings, compare_numbers


def photos_of(random, count, *, of=(0, 1, 2)):
    centres = np.random.default_rng(5).normal(size=(6, 24))
    classes = random.choice(of, size=count)
    return (centres[classes] * 1.5 + random.normal(size=(count, 24))).astype(np.float32)


def test_photos_of_the_same_kind_raise_few_alarms():
    random = np.random.default_rng(0)
    values = [
        (found.p_value, found.mmd, found.new_group)
        for found in (compare_embeddings(photos_of(random, 70), photos_of(random, 40)) for _ in range(30))
    ]
    # Of 30 tests at the level of 10 %, 3 raise a false alarm on average, and more than 9 in less than one of 1,000.
    assert ((np.array(values) <= 0.1).sum(axis=0) <= 9).all()
    assert (np.array(values) > 0).all()


def test_photos_that_all_moved_and_a_new_group_among_them_are_seen_each_by_its_test():
    random = np.random.default_rng(1)
    reference = photos_of(random, 150)
    moved = compare_embeddings(reference, photos_of(random, 60) + 0.8)
    assert moved.mmd <= 0.005 and moved.p_value <= 0.01
    few = np.concatenate([photos_of(random, 50), photos_of(random, 10, of=[5])])
    group = compare_embeddings(reference, few)
    assert group.new_group <= 0.02
    assert set(group.group.tolist()) >= set(range(50, 60))
    assert group.similarity[50:].mean() < group.similarity[:50].mean()


def test_equal_embeddings_are_no_drift():
    same = np.ones((30, 4), np.float32)
    assert compare_embeddings(same, same[:20]).p_value > 0.5


def test_numbers_are_compared_by_their_ranks_with_ties():
    random = np.random.default_rng(2)
    before, now = random.normal(size=(60, 3)).astype(np.float32), random.normal(size=(40, 3)).astype(np.float32)
    assert compare_numbers(before, now)[0] > 0.05
    now[:, 1] -= 2
    p_value, effects = compare_numbers(before, now)
    assert p_value <= 0.002 and effects[1] < -0.3 and abs(effects[0]) < 0.2
    wins = (now[:, None, 1] > before[None, :, 1]).mean() - 0.5
    assert np.isclose(effects[1], wins)
    p_value, effects = compare_numbers(np.ones((10, 2), np.float32), np.ones((5, 2), np.float32))
    assert p_value == 1 and effects.tolist() == [0, 0]


def test_the_mix_of_classes_is_that_of_the_neighbours():
    mix = class_mix(np.array([0, 0, 1, 1]), np.array([[0, 1], [0, 1], [2, 3], [0, 1]]), num_labels=3)
    assert mix.tolist() == [0.75, 0.25, 0]
    words = mix_changes(
        np.array([0.5, 0.5, 0]), np.array([0.8, 0.2, 0]), labels=["a", "b", "c"], num_before=200, num_now=100
    )
    assert words == ["a 50% → 80%", "b 50% → 20%"]
    assert not mix_changes(np.array([0.5, 0.5]), np.array([0.55, 0.45]), labels=["a", "b"], num_before=200, num_now=100)


def test_exchanged_channels_are_told_from_cold_light():
    def with_warmth(values):
        found = np.zeros((len(values), 6), np.float32)
        found[:, 3] = values
        return found

    before = with_warmth(np.linspace(0.2, 0.6, 30))
    assert channels_look_swapped(before, with_warmth(-np.linspace(0.2, 0.6, 30)))
    assert not channels_look_swapped(before, with_warmth(np.linspace(-0.1, 0.1, 30)))
    assert not channels_look_swapped(before, before)
