from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.evaluation_sets import dataset, noisy
from trainer.evaluation import calibration
from trainer.evaluation.calibration import (
    Reliability,
    at_threshold,
    calibration_rows,
    choose_threshold,
    fit_temperature,
    scores_and_correctness,
)
from trainer.evaluation.scores import losses_of, scores_of


def expected_calibration_error(scores, dataset):
    reliability = Reliability()
    targets = dataset.targets(np.arange(len(dataset)))
    reliability.update(*scores_and_correctness(scores, targets > 0, dataset.label_mode))
    return reliability.error()


@pytest.mark.parametrize("label_mode", ["single", "multi"])
@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_the_temperature_has_the_lowest_loss(label_mode, factor):
    logits, data = noisy(3000, label_mode=label_mode)
    logits = logits * np.float32(factor)
    temperature = fit_temperature(logits, data)
    targets = data.targets(np.arange(len(data)))

    def loss(t: float) -> float:
        return float(losses_of(logits, targets, label_mode, temperature=t).mean())

    assert loss(temperature) <= min(loss(temperature * 1.03), loss(temperature / 1.03))
    if label_mode == "single":  # Its scores were honest before the factor.
        assert temperature == pytest.approx(factor, rel=0.1)
        before = expected_calibration_error(scores_of(logits, "single"), data)
        after = expected_calibration_error(scores_of(logits, "single", temperature=temperature), data)
        assert after < 0.03
        assert factor == 1.0 or before > 0.1


def test_a_set_without_a_mistake_asks_for_no_certainty():
    logits = 3 * np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 5]
    data = dataset(*([i] for i in [0, 1, 2, 3] * 5))
    scores = scores_of(logits, "single", temperature=fit_temperature(logits, data))
    # One example's worth of doubt among 20: the score of a right answer stays at 1 - 0.75 / 21.
    assert scores.max() == pytest.approx(1 - 0.75 / 21, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_logits_that_say_nothing_leave_a_finite_temperature(value):
    temperature = fit_temperature(np.full((3, 4), value, np.float32), dataset([0], [1], [2]))
    assert 0.05 <= temperature <= 20.0


def test_a_model_that_is_always_wrong_gets_the_highest_temperature():
    logits = 50 * np.eye(4, dtype=np.float32)[[1, 2, 3]]
    assert fit_temperature(logits, dataset([0], [0], [0])) == pytest.approx(20.0, rel=1e-3)


def test_the_rows_of_a_big_set_are_a_sample(monkeypatch):
    logits, data = noisy(4000)
    np.testing.assert_array_equal(calibration_rows(data), np.arange(4000))
    monkeypatch.setattr(calibration, "_MAX_SAMPLE_LOGITS", 4)
    rows = calibration_rows(data)
    assert (len(np.unique(rows)), rows[0], rows[-1]) == (2000, 0, 3999)
    sampled = fit_temperature(logits[rows], data, rows=rows)
    assert sampled == pytest.approx(fit_temperature(logits, data), rel=0.1)
    threshold = choose_threshold(scores_of(logits[rows], "single"), data, 0.9, rows=rows)
    assert threshold.precision == pytest.approx(0.9, abs=0.01)


def test_the_calibration_error_by_hand():
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.45, 0.55]])
    data = dataset([0], [1], [0], [1], labels=("a", "b"))
    assert expected_calibration_error(scores, data) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    both = dataclasses.replace(data, label_mode="multi")
    # Each score is judged: 0.95 right once and wrong once, 0.05 likewise, 0.55 right, 0.45 wrong.
    assert expected_calibration_error(scores, both) == pytest.approx((2 * 0.45 + 2 * 0.45 + 4 * 0.45) / 8)


def scores_with(confidences: list[float]) -> np.ndarray:
    return np.array([[c, 1 - c] for c in confidences])


def test_the_threshold_answers_as_much_as_the_precision_allows():
    data = dataset([0], [0], [1], [0], [1], labels=("a", "b"))
    scores = scores_with([0.95, 0.9, 0.8, 0.7, 0.6])
    assert choose_threshold(scores, data, 1.0).threshold == pytest.approx(0.85)
    three_of_four = choose_threshold(scores, data, 0.75)
    assert (three_of_four.threshold, three_of_four.coverage, three_of_four.precision) == pytest.approx(
        (0.65, 0.8, 0.75)
    )
    everything = choose_threshold(scores, data, 0.6)
    assert (everything.threshold, everything.coverage) == (0.0, 1.0)


def test_equal_scores_are_not_cut_apart():
    data = dataset([0], [1], labels=("a", "b"))
    never = choose_threshold(scores_with([0.9, 0.9]), data, 0.9)
    assert (never.threshold, never.coverage, never.precision) == (1.0, 0.0, None)


def test_what_a_threshold_does():
    result = at_threshold(np.array([0.5, 0.6, 0.7]), np.array([True, False, True]), 0.6)
    assert (result.coverage, result.precision) == pytest.approx((2 / 3, 0.5))
