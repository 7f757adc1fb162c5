from __future__ import annotations

import numpy as np

from insight.copies.groups import join_guarded
from insight.data.joined_groups import joined_groups


def guarded(count, pairs, scores=None):
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return join_guarded(count, first, second, np.array(scores or [1.0] * len(pairs))).tolist()


def test_certain_pairs_join_whatever_the_chain():
    first, second = np.array([5, 3, 1]), np.array([3, 1, 0])
    assert joined_groups(7, first, second).tolist() == [0, 0, 2, 0, 4, 0, 6]
    assert joined_groups(3, first[:0], second[:0]).tolist() == [0, 1, 2]


def test_all_pairs_of_a_group_are_one_group():
    pairs = [(one, other) for one in range(1, 5) for other in range(one + 1, 5)]
    assert guarded(6, pairs) == [0, 1, 1, 1, 1, 5]


def test_a_chain_is_not_joined_to_one_group():
    groups = guarded(10, [(row, row + 1) for row in range(9)], scores=[0.9] * 9)
    assert max(np.bincount(groups)) == 2


def test_one_weak_pair_does_not_join_two_groups():
    left, right = [(0, 1), (0, 2), (1, 2)], [(3, 4), (3, 5), (4, 5)]
    assert guarded(6, [*left, *right, (2, 3)], scores=[0.9] * 6 + [0.5]) == [0, 0, 0, 3, 3, 3]
    between = [(one, other) for one in range(3) for other in range(3, 6)]
    assert guarded(6, [*left, *right, *between[:6]]) == [0] * 6


def test_the_order_of_equal_pairs_decides_nothing_but_chains():
    assert guarded(4, [(0, 1), (2, 3)]) == guarded(4, [(2, 3), (0, 1)]) == [0, 0, 2, 2]
    assert guarded(3, []) == [0, 1, 2]
