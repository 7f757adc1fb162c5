from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.errors import InputError
from insight.data import embedded_photos
from insight.data.embedded_photos import read_embedded_photos
from tests.support.written_sets import MEAN_COLOUR, write_record_set
from trainer.data.memory import MemoryBudget
from trainer.data.record_sets import find_record_sets


def read(paths, **options):
    return read_embedded_photos(find_record_sets(paths, flag="data_paths"), flag="data_paths", **options)


def test_all_records_of_all_sets_are_read_in_order_also_those_without_a_label(tmp_path):
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    first = write_record_set(str(tmp_path / "train"), vectors, [[0], [], [2, 1], [1], [0]])
    second = write_record_set(str(tmp_path / "more"), vectors[:2] + 100, [[], [2]], compression="gzip", contents="xy")
    photos = read([first, second])
    assert len(photos) == 7 and [found.prefix for found in photos.sets] == sorted([first, second])
    assert photos.uris.tolist() == [f"more/{row}.jpg" for row in range(2)] + [f"train/{row}.jpg" for row in range(5)]
    assert np.array_equal(photos.embeddings, np.concatenate([vectors[:2] + 100, vectors]))
    assert photos.first_label_ids.tolist() == [-1, 2, 0, -1, 2, 1, 0]
    assert photos.labels_of(4) == ["blue", "green"] and photos.labels_of(3) == []
    assert photos.set_of(1).prefix == second and photos.set_of(2).prefix == first
    assert photos.digest_of(0) != photos.digest_of(1) and len(photos.digest_of(0)) == 32

    some = photos.at(np.array([4, 0, 6]))
    assert some.uris.tolist() == ["train/2.jpg", "more/0.jpg", "train/4.jpg"]
    assert [some.labels_of(row) for row in range(3)] == [["blue", "green"], [], ["red"]]
    assert np.array_equal(some.embeddings, photos.embeddings[[4, 0, 6]]) and some.set_of(1).prefix == second

    labelled = read([first, second], only_labelled=True)
    expected = photos.at(np.flatnonzero(photos.label_counts))
    for name in ("uris", "embeddings", "label_ids", "label_splits", "image_digests", "image_hashes", "set_numbers"):
        assert np.array_equal(getattr(labelled, name), getattr(expected, name)), name


def test_sets_of_two_networks_are_refused(tmp_path):
    vectors = np.zeros((2, 3), np.float32)
    write_record_set(str(tmp_path / "a"), vectors, [[0], [1]])
    other = dataclasses.replace(MEAN_COLOUR, weights_digest="sha256:" + "1" * 64)
    write_record_set(str(tmp_path / "b"), vectors, [[0], [1]], identity=other)
    with pytest.raises(InputError, match="different backbones"):
        read([f"{tmp_path}/a", f"{tmp_path}/b"])


def test_what_does_not_fit_in_memory_is_one_line(tmp_path, monkeypatch):
    path = write_record_set(str(tmp_path / "a"), np.zeros((500, 3), np.float32), [[0]] * 500)
    monkeypatch.setattr(embedded_photos, "MemoryBudget", lambda limit: MemoryBudget(0))
    with pytest.raises(InputError, match=r"--data_paths: .* 500 records take 0 MiB .* 0 MiB may be used"):
        read([path])
