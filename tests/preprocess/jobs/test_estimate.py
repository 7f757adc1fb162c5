import dataclasses

import numpy as np
import pytest

from preprocess.jobs.estimate import Estimate, exactly, mean_of, share_of


def test_ranges_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    values, hits = random.lognormal(0, 1, 10_000), random.random(10_000) < 0.02
    mean_held = share_held = 0
    for _ in range(200):
        drawn = random.choice(10_000, 100, replace=False)
        mean, share = mean_of(values[drawn].tolist()), share_of(hits[drawn].tolist())
        mean_held += mean.low <= values.mean() <= mean.high
        share_held += share.low <= hits.mean() <= share.high
    assert mean_held >= 170
    assert share_held >= 180


def test_where_nothing_failed_some_may_yet():
    share = share_of([False] * 100)
    assert (share.low, share.expected) == (0, 0)
    assert 0.02 < share.high < 0.06


def test_what_stands_for_many_weighs_as_many():
    weighted = mean_of([1.0, 2.0, 4.0], weights=[2, 1, 1])
    assert weighted.expected == mean_of([1.0, 1.0, 2.0, 4.0]).expected
    share = share_of([True, False], weights=[3, 1])
    assert share.expected == 0.75
    # An image that stands for a thousand rows says no more about the others than one that stands for itself.
    alone, heavy = mean_of([1.0, 2.0, 4.0]), mean_of([1.0, 2.0, 4.0], weights=[1000, 1000, 1000])
    assert dataclasses.astuple(heavy) == pytest.approx(dataclasses.astuple(alone))


def test_all_of_them_leave_nothing_uncertain_and_one_says_little():
    assert mean_of([1.0, 3.0], is_all=True) == exactly(2)
    assert share_of([True, False], is_all=True) == exactly(0.5)
    assert mean_of([3.0]) == Estimate(1.5, 3, 6)


def test_arithmetic_keeps_the_ends_apart():
    assert Estimate(1, 2, 3) + Estimate(1, 1, 2) == Estimate(2, 3, 5)
    assert Estimate(1, 2, 3) * 2.0 == Estimate(2, 4, 6)
    assert Estimate(1, 2, 3) * Estimate(0, 1, 2) == Estimate(0, 2, 6)
    assert 12 / Estimate(1, 2, 3) == Estimate(4, 6, 12)
    assert Estimate.from_json(Estimate(0.1, 1 / 3, 2).to_json()) == Estimate(0.1, 0.333333, 2)


@pytest.mark.parametrize("bad", [(-1, 0, 1), (1, 0, 2), (0, 2, 1), (0, 1, float("inf")), (0, float("nan"), 1)])
def test_what_is_no_range_is_refused(bad):
    with pytest.raises(ValueError, match="not 0 <= low"):
        Estimate(*bad)
