from __future__ import annotations

import numpy as np
import pytest

from tests.support.evaluation_sets import dataset, noisy
from trainer.evaluation.assess import calibrate
from trainer.evaluation.calibration import fit_temperature
from trainer.evaluation.scores import losses_of
from trainer.evaluation.temperature_choice import choose_temperature


def choose(logits, data):
    return choose_temperature(logits, data, rows=np.arange(len(data)))


def choices(examples, factor, repeats):
    """The choices for made-up sets of a model whose logits are `factor` times those of honest scores."""
    for seed in range(1, repeats + 1):
        logits, data = noisy(examples, seed=seed)
        yield choose(logits * np.float32(factor), data)


@pytest.mark.parametrize(("examples", "repeats"), [(7, 100), (50, 60), (1000, 10)])
def test_honest_scores_hardly_ever_get_a_temperature(examples, repeats):
    changed = [choice for choice in choices(examples, 1.0, repeats) if choice.temperature != 1.0]
    assert len(changed) <= 0.03 * repeats


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_many_examples_of_scores_that_are_not_honest_get_the_temperature_that_makes_them_honest(factor):
    for choice in choices(1000, factor, 5):
        assert choice.temperature == choice.fitted == pytest.approx(factor, rel=0.15)
        assert choice.loss_cross_validated < choice.loss_at_one
        assert "fitted on 1,000 evaluation images" in choice.reason


def test_fifty_examples_of_a_model_that_is_much_too_sure_are_enough():
    assert all(2.0 < choice.temperature < 5.0 for choice in choices(50, 3.0, 20))


@pytest.mark.parametrize("examples", [7, 50, 1000])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_other_examples_gain_from_the_choice_on_average(examples, factor):
    others, their_data = noisy(3000, seed=999)
    others, targets = others * np.float32(factor), their_data.targets(np.arange(3000))

    def loss(temperature):
        return losses_of(others, targets, "single", temperature=temperature).mean()

    found = list(choices(examples, factor, 30 if examples < 1000 else 3))
    chosen = np.mean([loss(choice.temperature) for choice in found])
    assert chosen <= loss(1.0) + 0.005
    if factor == 1.0:  # What always fitting would do.
        assert chosen <= np.mean([loss(choice.fitted) for choice in found])
    else:
        assert chosen < loss(1.0) - 0.05


def test_seven_sure_and_right_predictions_do_not_make_the_model_less_sure():
    # Smoothed labels alone asked for this: one example's worth of doubt is much for seven examples.
    logits = 6 * np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]]
    choice = choose(logits, dataset([0], [1], [2], [3], [0], [1], [2]))
    assert choice.fitted > 1.5
    assert choice.temperature == 1.0
    assert "The scores stay as they were trained (temperature 1): on 7 evaluation images" in choice.reason
    assert "by chance too (p = 0." in choice.reason


def test_one_wrong_label_does_not_decide():
    logits = 8 * np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]]
    choice = choose(logits, dataset([0], [1], [2], [3], [0], [1], [3]))
    assert choice.fitted > 2
    assert choice.temperature == 1.0 < choice.loss_at_one
    two = choose(logits, dataset([0], [1], [2], [3], [0], [3], [3]))
    assert two.temperature == two.fitted > 3


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_one_example_and_logits_that_say_nothing_leave_the_scores(value):
    one = choose(np.array([[value, 9, 0, 0]], np.float32), dataset([0]))
    assert (one.temperature, one.loss_cross_validated) == (1.0, None)
    choice = choose(np.full((3, 4), value, np.float32), dataset([0], [1], [2]))
    assert (choice.temperature, choice.p_value) == (1.0, 1.0)
    assert np.isfinite(choice.loss_cross_validated)


def test_several_labels_are_calibrated_too():
    logits, data = noisy(1000, label_mode="multi")
    assert choose(4 * logits, data).temperature == pytest.approx(fit_temperature(4 * logits, data))


def test_the_calibration_has_the_chosen_temperature():
    logits, data = noisy(7)
    rows = iter([logits])
    calibration, _, choice = calibrate(lambda piece: next(rows), data, min_precision=0.9)
    assert calibration.temperature == choice.temperature == 1.0
    assert choice.to_json()["reason"] == choice.reason
