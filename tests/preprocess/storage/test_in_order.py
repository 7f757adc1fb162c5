import itertools
import threading
import time

import pytest

from preprocess.storage.in_order import map_in_order


def test_results_come_in_order_and_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in itertools.count():
            taken.append(number)
            yield number

    def slow_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    results = map_in_order(slow_first, items(), at_once=3)
    assert [next(results) for _ in range(20)] == [number * number for number in range(20)]
    assert len(taken) <= 20 + 2 * 3
    results.close()
    assert list(map_in_order(slow_first, range(3), at_once=8)) == [0, 1, 4]


def test_several_are_done_at_once():
    together = threading.Barrier(4)
    assert list(map_in_order(lambda _: together.wait(timeout=10) >= 0, range(8), at_once=4)) == [True] * 8


def test_the_first_fault_is_raised_and_no_more_is_begun():
    begun = []

    def fail_at_five(number):
        begun.append(number)
        if number == 5:
            raise OSError("five")
        return number

    results = map_in_order(fail_at_five, range(1000), at_once=2)
    found = []
    with pytest.raises(OSError, match="five"):
        found.extend(results)
    assert len(begun) < 20
