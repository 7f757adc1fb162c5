from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from tests.support.embedded_clusters import clusters, dataset, small_options
from trainer.search import seeds_and_curves
from trainer.search.cross_validation import fit
from trainer.search.seeds_and_curves import learning_curve, nested_parts, over_seeds


def test_mean_and_deviation_over_seeds_are_those_of_the_runs():
    train, held_out = clusters(40, 0, noise=2), clusters(40, 1, noise=2)
    options = small_options(max_steps=40, seed=5, seeds=3)
    found = over_seeds(train, held_out, clusters(20, 2, noise=2), options)
    assert found["seeds"] == [5, 6, 7]
    assert [run["seed"] for run in found["runs"]] == [5, 6, 7]
    losses = [run["eval"]["loss"] for run in found["runs"]]
    assert len(set(losses)) == 3
    assert found["eval"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert found["eval"]["loss"]["deviation"] == pytest.approx(np.std(losses, ddof=1))
    assert found["test"]["accuracy"]["mean"] == pytest.approx(np.mean([r["test"]["accuracy"] for r in found["runs"]]))
    # The first run is the one that is exported.
    assert losses[0] == fit(train, held_out, options).best.eval_loss
    json.dumps(found, allow_nan=False)


def test_one_seed_has_no_deviation_and_no_test_set_no_numbers():
    found = over_seeds(clusters(20, 0), clusters(8, 1), None, small_options(max_steps=10))
    assert found["eval"]["accuracy"]["deviation"] is None
    assert "test" not in found


def test_parts_are_nested_and_keep_every_class():
    data = dataset(np.zeros((83, 2)), [[0]] * 60 + [[1]] * 20 + [[2]] * 3, 3)
    parts = nested_parts(data, halvings=3, seed=0)
    assert [np.bincount(data.first_label_ids[rows]).tolist() for rows in parts] == [
        [8, 2, 2],
        [15, 5, 2],
        [30, 10, 2],
        [60, 20, 3],
    ]
    for smaller, larger in itertools.pairwise(parts):
        assert set(smaller) < set(larger)


@pytest.fixture
def short_curve(monkeypatch):
    """Half of the examples and all of them, each with one seed."""
    monkeypatch.setattr(seeds_and_curves, "_HALVINGS", 1)
    monkeypatch.setattr(seeds_and_curves, "_CURVE_SEEDS", 1)


def easy_and_hard(num_examples: int, seed: int):
    """Classes 0 and 1 are plain to see; 2 and 3 differ by a little in many dimensions."""
    random = np.random.default_rng(seed)
    classes = np.arange(num_examples) % 4
    centres = np.zeros((4, 128))
    centres[0, :16], centres[1, 16:32] = 4, 4
    centres[2, 32:], centres[3, 32:] = 0.12, -0.12
    embeddings = centres[classes] + random.normal(0, 1, (num_examples, 128))
    return dataset(embeddings, [[int(c)] for c in classes], 4)


def test_the_curve_says_which_class_needs_more_images(monkeypatch):
    monkeypatch.setattr(seeds_and_curves, "_HALVINGS", 2)
    monkeypatch.setattr(seeds_and_curves, "_CURVE_SEEDS", 2)
    found = learning_curve(easy_and_hard(128, 0), easy_and_hard(400, 1), small_options(max_steps=80))
    assert [point["examples"] for point in found["points"]] == [32, 64, 128]
    accuracies = [point["accuracy"]["mean"] for point in found["points"]]
    assert accuracies[-1] > accuracies[0]
    assert found["more_images_help"] == "yes"
    assert {row["label"] for row in found["classes"][:2]} == {"label 2", "label 3"}
    assert found["classes"][0]["sure"]
    assert not any(row["sure"] for row in found["classes"][2:])
    json.dumps(found, allow_nan=False)


def test_more_images_do_not_help_where_all_is_known(short_curve):
    found = learning_curve(clusters(64, 0, noise=0.1), clusters(40, 1, noise=0.1), small_options())
    assert found["last_doubling"] == {"accuracy_gain": 0.0, "standard_error": 0.0}
    assert found["more_images_help"] == "no"
    assert not any(row["sure"] for row in found["classes"])


def test_the_curve_of_several_labels_counts_whole_answers(short_curve):
    single = clusters(32, 0)
    both = dataset(single.embeddings.array, [[int(c), 4] for c in single.first_label_ids], 5)
    both = dataclasses.replace(both, label_mode="multi")
    found = learning_curve(both, both, small_options())
    always = next(row for row in found["classes"] if row["label"] == "label 4")
    assert always["f1"] == pytest.approx(1, abs=0.02)
    assert always["support"] == 32


def test_a_set_that_cannot_be_halved_gives_one_point(monkeypatch):
    monkeypatch.setattr(seeds_and_curves, "_CURVE_SEEDS", 1)
    tiny = clusters(8, 0)
    found = learning_curve(tiny, tiny, small_options(max_steps=5))
    assert [point["examples"] for point in found["points"]] == [8]
    assert "classes" not in found
