from __future__ import annotations

import pytest

from tests.support.evaluation_sets import noisy
from trainer.evaluation.metrics import evaluate
from trainer.reports.console import accuracy_line, calibration_line, seeds_line, without_shared_line


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (0.0, "all predictions are confident, of which"),
        (0.5, "a score of 0.50 or more is confident: "),
        (1.0, "no prediction is confident (a score of 1.00 or more), because no lower threshold made enough"),
    ],
)
def test_the_threshold_is_said_in_words(threshold, words):
    line = calibration_line(evaluate(*noisy(100), threshold=threshold).numbers)
    assert words in line
    assert "of which –" not in line


def test_a_calibration_that_got_worse_is_said():
    assert "(worse)" in calibration_line(evaluate(*noisy(500), temperature=9.0).numbers)
    assert "(worse)" not in calibration_line(evaluate(*noisy(500), temperature=1.0).numbers)


def test_without_a_temperature_there_is_one_calibration_error():
    assert "temperature" not in calibration_line(evaluate(*noisy(500), temperature=1.0).numbers)


def test_one_image_is_not_one_images():
    assert " on 1 image, " in accuracy_line("eval", evaluate(*noisy(1)).numbers)


def test_a_spread_needs_three_seeds():
    runs = [{"eval": {"accuracy": accuracy}} for accuracy in (0.5, 0.52, 0.54)]
    found = {"eval": {"accuracy": {"mean": 0.52, "deviation": 0.02}}, "left_out": {"eval": 0}}
    assert seeds_line({"seeds": [0, 1, 2], "runs": runs, **found}) == "eval over 3 seeds: accuracy 52.0% ± 2.0"
    assert seeds_line({"seeds": [0, 1], "runs": runs[:2], **found}) == "eval over 2 seeds: accuracy 50.0% and 52.0%"
    found["left_out"]["eval"] = 1
    assert "2 seeds (without the 1 shared image): accuracy" in seeds_line({"seeds": [0, 1], "runs": runs[:2], **found})


def test_without_shared_images_there_is_no_line():
    assert without_shared_line(evaluate(*noisy(5)).numbers) is None
