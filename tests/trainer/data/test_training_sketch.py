from __future__ import annotations

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.evaluation_sets import LABELS
from trainer.data import training_sketch
from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings
from trainer.data.photos import PhotoFinder
from trainer.data.training_sketch import TrainingSketch, sketch_training_set


def data_of(count, size):
    random = np.random.default_rng(0)
    return EmbeddingDataset(
        uris=np.array([f"/nowhere/{row}.jpg" for row in range(count)], object),
        embeddings=MemoryEmbeddings(random.normal(size=(count, size)).astype(np.float32)),
        label_ids=np.arange(count) % 4,
        label_splits=np.arange(count + 1),
        labels=LABELS,
        num_unlabeled=0,
    )


def sketch_of(data):
    return sketch_training_set(data, PhotoFinder(), image_size=32, max_statistics=5)


def test_a_small_set_is_kept_whole():
    data = data_of(50, 16)
    sketch = TrainingSketch.from_bytes(sketch_of(data).to_bytes(), where="x")
    assert (sketch.num_photos, sketch.embedding_size) == (50, 16)
    assert np.abs(sketch.vectors - data.embeddings.array).max() < 0.02
    assert sketch.label_ids.tolist() == data.label_ids.tolist() and sketch.statistics.shape == (0, 6)
    # New photos are rounded as those of the sketch are, so the same photos are the same.
    np.testing.assert_allclose(sketch.project(data.embeddings.array), sketch.vectors, rtol=1e-5, atol=1e-6)


def test_a_large_set_takes_less_than_a_megabyte_and_keeps_distances():
    data = data_of(2500, 2048)
    sketch = sketch_of(data)
    raw = sketch.to_bytes()
    assert len(raw) < 1_000_000 and sketch.vectors.shape == (2000, 450)
    read = TrainingSketch.from_bytes(raw, where="x")
    rows = np.flatnonzero(np.isin(np.arange(2500), np.sort(np.random.RandomState(20150911).permutation(2500)[:2000])))
    kept = data.embeddings.array[rows]
    assert np.abs(read.project(kept) - read.vectors).max() < 0.05
    before = np.linalg.norm(kept[:50, None] - kept[None, :50], axis=2)
    after = np.linalg.norm(read.vectors[:50, None] - read.vectors[None, :50], axis=2)
    assert np.abs(after / np.maximum(before, 1) - (before > 0)).max() < 0.2


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"x" * 100])
def test_what_is_no_sketch_is_one_line(raw):
    with pytest.raises(InputError, match=r"model/x: is no sketch of a training set, or is damaged"):
        TrainingSketch.from_bytes(raw, where="model/x")


def test_a_sketch_of_another_format_or_cut_off_is_one_line(monkeypatch):
    raw = sketch_of(data_of(20, 4)).to_bytes()
    with pytest.raises(InputError, match="damaged"):
        TrainingSketch.from_bytes(raw[: len(raw) // 2], where="x")
    monkeypatch.setattr(training_sketch, "_FORMAT", 2)
    with pytest.raises(InputError, match="another format"):
        TrainingSketch.from_bytes(raw, where="x")
