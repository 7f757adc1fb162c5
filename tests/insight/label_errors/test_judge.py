from __future__ import annotations

import numpy as np
import pytest

from configs.errors import InputError
from insight.label_errors import features as features_module
from insight.label_errors.features import principal_features
from insight.label_errors.folds import NOT_TESTED, grouped_folds
from insight.label_errors.judge import NUM_NEIGHBOURS, judge_labels
from insight.label_errors.kernel_scores import KernelScores
from insight.label_errors.label_noise import true_label_scores
from insight.label_errors.regression import fit_regression, log_softmax, logits_of
from insight.neighbours.exact import unit_vectors

CLASSES, EACH = 3, 40


def photos(*, noise=0.8, seed=0, size=24):
    """Embeddings of three classes of 40 photos each, and their right labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), EACH)
    centres = random.normal(0, 1, (CLASSES, size))
    return (centres[labels] + random.normal(0, noise, (len(labels), size))).astype(np.float32), labels


def one_hot(labels):
    return np.eye(CLASSES)[labels]


def judged(embeddings, labels, groups=None, **more):
    return judge_labels(embeddings, one_hot(labels), np.arange(len(labels)) if groups is None else groups, **more)


def test_flipped_labels_come_first_with_the_right_label_proposed():
    embeddings, right = photos()
    given = right.copy()
    wrong = np.array([3, 17, 50, 71, 99, 118])
    given[wrong] = (right[wrong] + 1) % CLASSES
    found = judged(embeddings, given)
    assert set(found.order[: len(wrong)]) == set(wrong)
    assert np.array_equal(found.scores[wrong].argmax(axis=1), right[wrong])
    assert (found.wrong[wrong] > 0.5).all()
    assert (np.delete(found.wrong, wrong) < 0.5).all()
    assert found.wrong.sum() == pytest.approx(len(wrong), abs=0.5)  # the mistakes do not make the scores less sure
    assert found.neighbours.shape == (len(right), NUM_NEIGHBOURS) and np.allclose(found.confusions.sum(axis=1), 1)
    again = judged(embeddings, given)
    assert np.array_equal(found.wrong, again.wrong) and np.array_equal(found.order, again.order)


def test_a_copy_with_the_same_wrong_label_does_not_vouch():
    embeddings, right = photos()
    given = right.copy()
    given[:8] = 1  # eight copies of one photo, all with one wrong label
    embeddings[:8] = embeddings[0]
    alone, grouped = np.arange(len(right)), np.arange(len(right))
    grouped[:8] = 0
    with_groups = judged(embeddings, given, grouped)
    assert with_groups.wrong[:8].min() > 0.9 > judged(embeddings, given, alone).wrong[:8].max()
    assert not np.isin(with_groups.neighbours[:8], np.arange(8)).any()


def test_the_only_photo_of_its_class_is_last_and_not_judged():
    embeddings, right = photos()
    keep = np.concatenate([np.arange(2 * EACH), [2 * EACH]])
    found = judged(embeddings[keep], right[keep])
    assert np.isnan(found.wrong[-1]) and found.order[-1] == len(keep) - 1
    assert np.isfinite(found.wrong[:-1]).all() and np.isfinite(found.scores).all()


def test_one_class_cannot_be_audited():
    embeddings, right = photos()
    with pytest.raises(InputError, match="--data_paths: an audit compares classes, and fewer than two"):
        judged(embeddings[:EACH], right[:EACH])


@pytest.mark.parametrize("embeddings", [np.zeros((20, 4), np.float32), np.full((20, 4), 3e30, np.float32)])
def test_embeddings_that_say_nothing_give_numbers(embeddings):
    found = judged(embeddings, np.arange(20) % 2)
    assert np.isfinite(found.wrong).all()


def test_classes_without_a_photo_have_no_score_and_two_labels_share():
    embeddings, right = photos()
    given = np.zeros((len(right), 5))
    given[np.arange(len(right)), right * 2] = 1
    given[0] = [0.5, 0, 0.5, 0, 0]
    found = judge_labels(embeddings, given, np.arange(len(right)))
    assert not found.scores[:, [1, 3]].any()
    assert np.allclose(found.scores.sum(axis=1), 1)
    assert found.wrong[0] < 0.5


def test_large_sets_use_samples_of_the_same_definition(monkeypatch):
    """With limits below the number of photos, what is sampled for very many photos finds the same flips."""
    from insight.label_errors import judge

    for name, value in (("_MANY", 50), ("_MAX_KERNEL", 50), ("_MAX_TRAINED_ON", 60), ("_MAX_CANDIDATES", 70)):
        monkeypatch.setattr(judge, name, value)
    for name, value in (("EXACT_ROWS", 50), ("_SAMPLE", 80), ("MOST_AXES", 10), ("_BLOCK", 32)):
        monkeypatch.setattr(features_module, name, value)
    embeddings, right = photos(noise=0.5)
    given = right.copy()
    given[[5, 60]] = [2, 0]
    found = judged(embeddings, given)
    assert set(found.order[:2]) == {5, 60}
    assert principal_features(embeddings).dtype == np.float32 and principal_features(embeddings).shape[1] == 10


@pytest.mark.parametrize("count", [10, 60])
def test_principal_features_keep_all_distances_of_standardized_embeddings(count):
    embeddings = np.random.default_rng(0).normal(3, 2, (count, 24)).astype(np.float32)
    embeddings[:, 5] = 7  # the same in all photos
    standardized = embeddings.astype(np.float64)
    standardized = (standardized - standardized.mean(axis=0)) / np.where(
        np.arange(24) == 5, np.inf, standardized.std(axis=0)
    )
    found = principal_features(embeddings)
    assert found.shape[1] <= max(24, count)
    assert np.allclose(found @ found.T, standardized @ standardized.T, atol=1e-6)


def test_the_regression_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    embeddings, labels = photos(noise=2)
    features, l2 = embeddings.astype(np.float64), 0.1
    weights = fit_regression(features, one_hot(labels), l2=l2)
    peer = linear_model.LogisticRegression(C=1 / (l2 * len(labels)), max_iter=2000, tol=1e-8).fit(features, labels)
    ours, theirs = np.exp(log_softmax(logits_of(features, weights))), peer.predict_proba(features)
    assert np.abs(ours - theirs).max() < 0.02


def test_folds_keep_groups_together_and_spread_classes():
    labels = np.array([0] * 10 + [1] * 7 + [2] * 3)
    groups = np.array([0, 0, 0, *range(3, 10), *range(10, 17), 17, 17, 17])
    folds = grouped_folds(labels, groups, 5, seed=1)
    assert len(set(folds[:3])) == 1
    assert (folds[17:] == NOT_TESTED).all()  # one group is all there is of class 2
    sizes = np.bincount(folds[3:17], minlength=5)
    assert sizes.min() >= 2 and np.array_equal(folds, grouped_folds(labels, groups, 5, seed=1))


def test_the_kernel_scores_are_those_of_regressions_without_the_photos_of_the_group():
    embeddings, labels = photos(noise=2)
    groups = np.arange(len(labels))
    groups[[0, 3, 50]] = 0
    scores = KernelScores(embeddings, groups)
    targets = one_hot(labels).astype(np.float64)
    logs = scores.unseen_logs(targets)
    vectors = unit_vectors(embeddings).astype(np.float64)
    distances = 2 - 2 * vectors @ vectors.T
    kernel = np.exp(-distances / np.median(distances))
    centred = targets - targets.mean(axis=0)
    for rows in ([0, 3, 50], [7]):
        others = np.setdiff1d(np.arange(len(labels)), rows)
        ridged = kernel[np.ix_(others, others)] + np.eye(len(others))  # the ridge is 1 before one is chosen
        expected = kernel[np.ix_(rows, others)] @ np.linalg.solve(ridged, centred[others])
        # The scores are a softmax of these numbers times one factor, so differences of logarithms are proportional.
        found = logs[rows] - logs[rows].mean(axis=1, keepdims=True)
        expected -= expected.mean(axis=1, keepdims=True)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 1 - 1e-6


def test_label_noise_knows_which_class_is_taken_for_which():
    random = np.random.default_rng(0)
    right = np.repeat(np.arange(3), 400)
    given = right.copy()
    given[:80] = 1  # a fifth of class 0 is labelled 1
    scores = 0.9 * one_hot(right) + 0.1 / 3 + random.uniform(0, 0.01, (1200, 3))
    posterior, shares = true_label_scores(np.log(scores / scores.sum(axis=1, keepdims=True)), one_hot(given))
    assert shares[0, 1] == pytest.approx(0.2, abs=0.05) and shares[1, 0] < 0.03
    assert (posterior[:80, 0] > 0.7).all()
