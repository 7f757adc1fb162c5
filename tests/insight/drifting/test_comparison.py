from __future__ import annotations

import numpy as np

from insight.drifting.comparison import compare
from insight.drifting.new_photos import NewPhotos
from tests.support.written_sets import MEAN_COLOUR
from trainer.data.photo_statistics import PHOTO_STATISTICS
from trainer.data.photos import PhotoFinder
from trainer.data.training_sketch import TrainingSketch
from trainer.export.model_info import ModelInfo

SIZE = 64
INFO = ModelInfo(labels=("a", "b"), backbone=MEAN_COLOUR, head_digest="sha256:0")


def compared(training, new):
    """The comparison of two groups of embeddings, float32 [n, SIZE]."""
    statistics = np.zeros((0, len(PHOTO_STATISTICS)), np.float32)
    label_ids = np.arange(len(training)) % 2
    sketch = TrainingSketch.of_vectors(training, label_ids, statistics, embedding_size=SIZE, num_photos=len(training))
    names = [f"{number}.jpg" for number in range(len(new))]
    photos = NewPhotos(
        total=len(new),
        uris=names,
        places=names,
        finders=[PhotoFinder()] * len(new),
        digests=[None] * len(new),
        embeddings=new,
        read_places=np.zeros(0, np.int64),
        statistics=statistics,
    )
    return compare(sketch, photos, info=INFO, alarm_level=0.03)


def test_new_photos_that_are_training_photos_are_counted_and_said():
    random = np.random.default_rng(0)
    # As of networks that end in a ReLU and a mean: not negative, with much that all have in common.
    training, new = (random.uniform(0.5, 1, (40, SIZE)).astype(np.float32) for _ in range(2))
    assert compared(training, new).num_in_training == 0
    new[:7] = training[3:10] * (1 + random.uniform(-1, 1, (7, SIZE)) / 256)  # bfloat16 has 8 bits.
    comparison = compared(training, new)
    assert comparison.num_in_training == 7
    assert any("7 of the new photos are in the training set, too" in line for line in comparison.lines)
