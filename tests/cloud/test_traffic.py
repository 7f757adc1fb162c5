from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.traffic import NEW, with_new, without


@pytest.mark.parametrize(
    ("split", "percent", "expected"),
    [
        ({}, 20, {NEW: 100}),
        ({"5": 0}, 20, {NEW: 100}),
        ({"5": 100}, 20, {NEW: 20, "5": 80}),
        ({"5": 100}, 100, {NEW: 100}),
        ({"5": 100}, 0, {NEW: 0, "5": 100}),
        ({"5": 50, "6": 50, "7": 0}, 25, {NEW: 25, "5": 38, "6": 37}),
    ],
)
def test_a_new_version_gets_its_share(split, percent, expected):
    assert with_new(split, percent) == expected


@pytest.mark.parametrize(
    ("split", "gone", "expected"),
    [
        ({"5": 100}, "5", {}),
        ({"5": 100, "6": 0}, "5", {"6": 100}),
        ({"5": 20, "6": 60, "7": 20}, "5", {"6": 75, "7": 25}),
        ({"5": 100, "6": 0}, "6", {"5": 100}),
        ({"5": 100, "6": 0, "7": 0}, "5", {"6": 100, "7": 0}),
    ],
)
def test_the_others_get_the_share_of_a_version_that_goes(split, gone, expected):
    assert without(split, gone) == expected


@given(st.dictionaries(st.sampled_from("123456"), st.integers(0, 100), min_size=1), st.integers(0, 100))
def test_shares_always_add_up(split, percent):
    assert sum(with_new(split, percent).values()) == 100
    left = without(split, min(split))
    assert sum(left.values()) == (100 if len(split) > 1 else 0)
