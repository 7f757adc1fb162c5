from __future__ import annotations

import numpy as np

from benchmarks.drift import Photos
from benchmarks.drift import compared as compared_rows
from trainer.data.photo_statistics import PHOTO_STATISTICS

SIZE = 64


def compared(training, new):
    """The comparison of two groups of embeddings, float32 [n, SIZE]."""
    before, now = (
        Photos(rows, np.zeros((0, len(PHOTO_STATISTICS)), np.float32), np.arange(len(rows)) % 2)
        for rows in (training, new)
    )
    return compared_rows(before, np.arange(len(training)), now, np.arange(len(new)))


def test_new_photos_that_are_training_photos_are_counted_and_said():
    random = np.random.default_rng(0)
    # As of networks that end in a ReLU and a mean: not negative, with much that all have in common.
    training, new = (random.uniform(0.5, 1, (40, SIZE)).astype(np.float32) for _ in range(2))
    assert compared(training, new).num_in_training == 0
    new[:7] = training[3:10] * (1 + random.uniform(-1, 1, (7, SIZE)) / 256)  # bfloat16 has 8 bits.
    comparison = compared(training, new)
    assert comparison.num_in_training == 7
    assert any("7 of the new photos are in the training set, too" in line for line in comparison.lines)
