from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics

from trainer.evaluation.ranking import NUM_THRESHOLDS, RankingMeasures, areas_of_scores


@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_areas_are_those_of_scikit_learn_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(500) < 0.3
    scores = np.floor((rng.random(500) + 0.3 * positive) * levels) / levels
    roc_auc, average_precision = areas_of_scores(scores, positive)
    assert roc_auc == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-12)
    assert average_precision == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-12)


def test_areas_that_are_not_defined_are_none():
    scores = np.array([0.1, 0.2])
    assert areas_of_scores(scores, np.array([False, False])) == (None, None)
    assert areas_of_scores(scores, np.array([True, True])) == (None, 1.0)


def in_parts(scores: np.ndarray, member: np.ndarray, **settings: int) -> RankingMeasures:
    ranking = RankingMeasures(examples=len(scores), num_labels=scores.shape[1], **settings)
    for start in range(0, len(scores), 300):
        ranking.update(scores[start : start + 300], member[start : start + 300])
    return ranking


def some_scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, 1000)
    member = np.eye(4, dtype=bool)[classes]
    logits = rng.normal(0, 2, (1000, 4)) + 2 * member
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), member


def test_counting_in_bins_gives_nearly_the_areas_of_sorting():
    scores, member = some_scores()
    exact = in_parts(scores, member).areas()
    binned = in_parts(scores, member, max_exact_scores=0).areas()
    np.testing.assert_allclose(binned, exact, atol=2e-3)
    assert exact[2][0] == pytest.approx(metrics.roc_auc_score(member[:, 2], scores[:, 2]), abs=1e-6)


def test_scores_that_round_to_certainty_are_still_told_apart():
    scores = np.array([[1 - 1e-12], [1 - 1e-10]])
    assert in_parts(scores, np.array([[True], [False]])).areas() == [(1.0, 1.0)]


def test_counts_at_thresholds():
    scores, member = some_scores()
    counts = in_parts(scores, member).threshold_counts()
    assert counts.true_positives.shape == (4, NUM_THRESHOLDS)
    for index in (0, 50, 137, 200):
        given = scores[:, 1] >= index / 200
        assert counts.true_positives[1, index] == (given & member[:, 1]).sum()
        assert counts.false_positives[1, index] == (given & ~member[:, 1]).sum()
        assert counts.true_negatives[1, index] == (~given & ~member[:, 1]).sum()
        assert counts.false_negatives[1, index] == (~given & member[:, 1]).sum()


def test_no_warning_at_scores_of_0_and_1():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_parts(np.array([[0.0, 1.0]]), np.array([[False, True]])).areas() == [(None, None), (None, 1.0)]
