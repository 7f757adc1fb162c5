from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.support.embedded_clusters import clusters, dataset, in_views, small_options
from trainer.data.embeddings import MemoryViews
from trainer.search import paired_comparison
from trainer.search.cross_validation import fit
from trainer.search.paired_comparison import num_trainings, paired_interval
from trainer.search.view_comparison import compare_views
from trainer.training.head import head_digest


def mirrored_at_random(num_examples: int, seed: int, *, held_out: bool = False):
    """Two classes, of which only the size of numbers tells, and not their sign: what views with both signs teach.

    Held-out images have any sign, as photos that may be mirrored. Those for training have one.
    """
    random = np.random.default_rng(seed)
    classes = np.arange(num_examples) % 2
    centres = np.random.default_rng(7).normal(0, 1, (2, 16))
    embeddings = centres[classes] + random.normal(0, 0.5, (num_examples, 16))
    if held_out:
        embeddings *= random.choice([-1, 1], (num_examples, 1))
    data = dataset(embeddings, [[int(c)] for c in classes], 2)
    if held_out:
        return data
    array = data.embeddings.array
    return dataclasses.replace(data, embeddings=MemoryViews(np.stack([array, -array])))


def test_views_that_teach_what_held_out_images_need_improve_the_accuracy():
    options = small_options(seed=4, max_steps=80)
    train, evaluation = mirrored_at_random(60, 0), mirrored_at_random(120, 1, held_out=True)
    left_out = {"eval": np.arange(20)}
    found = compare_views(train, evaluation, clusters_of_two(40), options, left_out=left_out)
    assert found["seeds"] == [4, 5, 6]
    assert found["train_examples"] == 60
    assert found["left_out"] == {"eval": 20, "test": 0}
    gain = found["eval"]
    assert gain["brought"] == "more"
    assert gain["gain"] == pytest.approx(gain["with_views"] - gain["with_view_0"])
    assert 0 < gain["interval"][0] < gain["gain"] < gain["interval"][1]
    assert found["test"].keys() == gain.keys()
    json.dumps(found, allow_nan=False)


def clusters_of_two(num_examples: int):
    return mirrored_at_random(num_examples, 2, held_out=True)


def test_views_that_are_all_alike_bring_nothing_and_other_classes_cost():
    train, evaluation = clusters(40, 0, noise=2), clusters(60, 1, noise=2)
    found = compare_views(in_views(train, noise=0), evaluation, None, small_options(max_steps=20))
    assert found["eval"]["gain"] == 0
    assert found["eval"]["interval"] == [0, 0]
    assert found["eval"]["brought"] == "nothing"
    assert "test" not in found
    # Views that are the images of other classes.
    array = train.embeddings.array
    wrong = dataclasses.replace(train, embeddings=MemoryViews(np.stack([array, *[np.roll(array, 1, axis=0)] * 5])))
    assert compare_views(wrong, evaluation, None, small_options())["eval"]["brought"] == "less"


def test_the_heads_without_views_are_those_of_a_training_on_view_0_and_the_others_those_of_the_run(monkeypatch):
    train, evaluation, options = clusters(40, 0), clusters(20, 1), small_options(max_steps=20, seeds=4, seed=2)
    viewed = in_views(train)
    heads = []

    def spy(*arguments):
        heads.append(fit(*arguments))
        return heads[-1]

    monkeypatch.setattr(paired_comparison, "fit", spy)
    compare_views(viewed, evaluation, None, options)
    digests = [head_digest(result.head) for result in heads]
    assert len(digests) == num_trainings(options) == 8
    assert digests[0] == head_digest(fit(viewed, evaluation, options).head)
    assert digests[1] == head_digest(fit(train, evaluation, options).head)
    assert digests[0] != digests[1]


def test_the_interval_covers_the_mean_at_least_as_often_as_it_says():
    """Differences of pairs that depend on the image, on the seed, and on both together, with a mean of 0.02."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        shift = 0.02 + random.normal(0, 0.02, (3, 1)) + random.normal(0, 0.1, (1, 100))
        low, high = paired_interval(shift + random.normal(0, 0.3, (3, 100)))
        covered += low <= 0.02 <= high
    assert covered / 400 >= 0.95


def test_one_image_says_nothing():
    assert paired_interval(np.ones((3, 1))) == (-1, 1)
