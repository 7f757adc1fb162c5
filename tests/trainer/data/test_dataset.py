from __future__ import annotations

import dataclasses
import hashlib
import os

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.records.record_set import MANIFEST_NAME, Manifest, sidecar_path
from trainer.data.dataset import data_warnings, in_label_mode, label_mode_of, read_dataset
from trainer.data.embeddings import MemoryEmbeddings
from trainer.data.memory import MemoryBudget
from trainer.data.record_sets import find_record_sets

EMBEDDINGS = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(prefix):
    return read_dataset(find_record_sets([prefix], flag="train_data_paths"), flag="train_data_paths")


def bless(prefix, *, records=None):
    """Makes the manifest agree with what now stands in the first shard."""
    path = sidecar_path(prefix, MANIFEST_NAME)
    with open(path, "rb") as stream:
        manifest = Manifest.from_bytes(stream.read(), where=path)
    first = manifest.shards[0]
    with open(os.path.join(os.path.dirname(prefix), first.name), "rb") as stream:
        raw = stream.read()
    first = dataclasses.replace(
        first,
        num_bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        records=first.records if records is None else records,
    )
    shards = (first, *manifest.shards[1:])
    manifest = dataclasses.replace(manifest, shards=shards, records=sum(shard.records for shard in shards))
    with open(path, "wb") as stream:
        stream.write(manifest.to_bytes())


@pytest.fixture
def prefix(tmp_path):
    return f"{tmp_path}/train"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_reads_what_was_written(prefix, write_set, compression):
    write_set(prefix, EMBEDDINGS, [[0], [2, 1], [1], [2]], compression=compression)
    dataset = read(prefix)
    np.testing.assert_array_equal(dataset.embeddings.array, EMBEDDINGS)
    assert list(dataset.uris) == [f"train/{i}.jpg" for i in range(4)]
    assert dataset.first_label_ids.tolist() == [0, 2, 1, 2]
    assert dataset.num_multi_label == 1
    assert dataset.label_sets().tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_targets_share_an_example_among_its_labels(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[0], [2, 1], [1, 1], [0, 1, 2]])
    targets = read(prefix).targets(np.array([3, 1, 2, 0]))
    np.testing.assert_allclose(targets, [[1 / 3] * 3, [0, 0.5, 0.5], [0, 1, 0], [1, 0, 0]])


def test_unlabeled_records_are_left_out_and_counted(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[], [2, 1], [], [0]])
    dataset = read(prefix)
    assert dataset.num_unlabeled == 2
    np.testing.assert_array_equal(dataset.embeddings.array, EMBEDDINGS[[1, 3]])
    assert list(dataset.uris) == ["train/1.jpg", "train/3.jpg"]
    assert dataset.targets(np.array([0, 1])).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


def test_unlabeled_records_can_be_a_class_of_their_own(prefix, write_set):
    record_sets = find_record_sets([write_set(prefix, EMBEDDINGS, [[], [2, 1], [], []])], flag="f")
    dataset = read_dataset(record_sets, flag="f", unlabeled="default_class")
    assert dataset.labels == ("red", "green", "blue", "unlabeled")
    assert dataset.label_ids.tolist() == [3, 2, 1, 3, 3]
    assert dataset.support().tolist() == [0, 1, 1, 3]
    assert dataset.num_unlabeled == 0
    np.testing.assert_array_equal(dataset.embeddings.array, EMBEDDINGS)
    streamed = read_dataset(record_sets, flag="f", budget=MemoryBudget(0), unlabeled="default_class")
    assert not streamed.embeddings.in_memory
    assert streamed.label_ids.tolist() == dataset.label_ids.tolist()
    np.testing.assert_array_equal(np.concatenate(list(streamed.embeddings.pieces())), EMBEDDINGS)


def test_a_dictionary_may_have_the_default_class_already(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[], [2], [1], [0]], labels=("red", "unlabeled", "blue"))
    dataset = read_dataset(find_record_sets([prefix], flag="f"), flag="f", unlabeled="default_class")
    assert dataset.labels == ("red", "unlabeled", "blue")
    assert dataset.label_ids.tolist() == [1, 2, 1, 0]


def test_targets_of_a_multi_label_set_are_its_labels(prefix, write_set):
    dataset = read(write_set(prefix, EMBEDDINGS, [[0], [2, 1], [1, 1], [0, 1, 2]]))
    targets = dataclasses.replace(dataset, label_mode="multi").targets(np.array([3, 1, 2, 0]))
    assert targets.tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0]]


def test_the_label_mode_is_told_by_the_training_set_unless_it_is_given(prefix, write_set):
    few = read(write_set(prefix, np.zeros((20, 3), np.float32), [[0, 1]] + [[1]] * 19))
    many = read(write_set(prefix, np.zeros((20, 3), np.float32), [[0, 1]] * 2 + [[1]] * 18))
    assert label_mode_of(few, "auto") == "single"
    assert label_mode_of(many, "auto") == "multi"
    assert label_mode_of(many, "single") == "single"
    both = in_label_mode({"train": many, "eval": few}, "auto")
    assert [dataset.label_mode for dataset in both.values()] == ["multi", "multi"]


def test_the_digest_tells_everything_apart_that_training_can_learn_from(prefix, write_set):
    one = read(write_set(prefix, EMBEDDINGS, [[0], [2, 1], [1], [2]]))
    read_again = dataclasses.replace(one)
    others = [
        dataclasses.replace(one, label_mode="multi"),
        dataclasses.replace(one, labels=("a", "b", "c")),
        dataclasses.replace(one, label_ids=one.label_ids[::-1]),
        dataclasses.replace(one, source=""),
        dataclasses.replace(one, source="", embeddings=MemoryEmbeddings(EMBEDDINGS + 1)),
        read(write_set(prefix, EMBEDDINGS + 1, [[0], [2, 1], [1], [2]])),
    ]
    assert read_again.digest() == one.digest()
    assert len({dataset.digest() for dataset in [one, *others]}) == 7


def test_nothing_labelled(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[]] * 4)
    with pytest.raises(InputError, match="none of the 4 records has a label"):
        read(prefix)


def test_a_shard_of_another_run_is_told_by_its_digest(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[0]] * 4)
    shard = f"{prefix}-00000-of-00002.tfrecord"
    with open(shard, "rb") as stream:
        raw = stream.read()
    with open(shard, "wb") as stream:
        stream.write(raw[::-1])
    with pytest.raises(InputError, match=r"00000-of-00002\.tfrecord: its contents are not what"):
        read(prefix)


# In the length (longer than any record; longer than the file), and in the data.
@pytest.mark.parametrize("place", [4, 1, 12])
def test_a_damaged_record_names_the_shard(prefix, write_set, place):
    write_set(prefix, EMBEDDINGS, [[0]] * 4)
    shard = f"{prefix}-00000-of-00002.tfrecord"
    with open(shard, "r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff\xff\xff")
    bless(prefix)
    with pytest.raises(InputError, match=r"00000-of-00002\.tfrecord: cannot be read"):
        read(prefix)


@pytest.mark.parametrize("records", [1, 3])
def test_another_number_of_records_than_the_manifest_says(prefix, write_set, records):
    write_set(prefix, EMBEDDINGS, [[0]] * 4)
    bless(prefix, records=records)
    with pytest.raises(InputError, match=r"00000-of-00002\.tfrecord: holds"):
        read(prefix)


def test_a_label_id_beyond_the_dictionary(prefix, write_set):
    write_set(prefix, EMBEDDINGS, [[0], [1], [2], [3]])
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord: label id 3"):
        read(prefix)


def test_an_embedding_that_is_not_finite_names_the_image(prefix, write_set):
    broken = EMBEDDINGS.copy()
    broken[2, 1] = np.nan
    write_set(prefix, broken, [[0]] * 4)
    with pytest.raises(InputError, match=r"train/2\.jpg"):
        read(prefix)


def test_warnings_name_classes_without_examples(prefix, write_set):
    train = read(write_set(prefix, EMBEDDINGS, [[0], [1], [], [1]]))
    held_out = read(write_set(prefix, EMBEDDINGS, [[0], [2], [0], [0]]))
    assert data_warnings(train, held_out, held_out_name="eval") == [
        "class 'blue' has no training example: the model will never name it",
        "class 'green' has no eval example: how well the model recognizes it is unknown",
        "1 training record has no label and is left out",
    ]


def test_many_classes_without_examples_are_one_warning(prefix, write_set):
    labels = [f"class {i}" for i in range(300)]
    train = read(write_set(prefix, EMBEDDINGS, [[i] for i in range(4)], labels=labels))
    warnings = data_warnings(train, train, held_out_name="eval")
    assert len(warnings) == 2
    assert "296 of the 300 classes have no eval example ('class 4', 'class 5', 'class 6' and 293 more)" in warnings[1]
