from __future__ import annotations

import numpy as np
import pytest

from insight.drifting.group_scan import likelihood_ratios, neighbourhood_sizes, scan_for_group


def test_the_likelihood_ratio_is_that_of_the_bernoulli_model():
    found = likelihood_ratios(10, new=40, total=100)

    def log_likelihood(part, whole, share):
        return part * np.log(share) + (whole - part) * np.log(1 - share)

    assert found.shape == (11,) and (found[:5] == 0).all() and (np.diff(found[4:]) > 0).all()
    two = log_likelihood(7, 10, 0.7) + log_likelihood(33, 90, 33 / 90)
    assert found[7] == pytest.approx(two - log_likelihood(40, 100, 0.4))
    # All of the neighbourhood are new: 0 log 0 counts as 0.
    assert found[10] == pytest.approx(log_likelihood(30, 90, 1 / 3) - log_likelihood(40, 100, 0.4))


@pytest.mark.parametrize("total", [2, 3, 40, 420, 4000])
def test_neighbourhoods_are_small_and_large_and_never_all_photos(total):
    sizes = neighbourhood_sizes(total)
    assert sizes == sorted(set(sizes)) and sizes[0] >= 1 and sizes[-1] < total
    assert total < 100 or (sizes[0] == 6 and sizes[-1] >= 0.12 * total)


def test_a_group_of_few_new_photos_is_found_whole():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 12))
    features[190:] = [3] * 6 + [0] * 6 + 0.8 * random.normal(size=(10, 12))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    choices = np.zeros((200, 200), np.float32)
    for number, choice in enumerate(choices):
        choice[random.permutation(200)[:80] if number else np.arange(120, 200)] = 1
    found = scan_for_group(features, choices)
    assert found.values.shape == (200,) and (found.values[1:] >= found.values[0]).mean() <= 0.03
    assert len(set(found.group.tolist()) & set(range(190, 200))) >= 9
