"""Record sets made elsewhere, such as those of the published hugs and flowers samples."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import InputError
from preprocess.records.tfrecord import _masked_crc
from tests.support.programs import end_program, start_program
from trainer.data.dataset import read_dataset
from trainer.data.record_sets import find_record_sets, require_agreement

EMBEDDINGS = np.arange(20, dtype=np.float32).reshape(4, 5)


def example(uri: str, embedding, label_ids, **more: tf.train.Feature) -> bytes:
    """As the published pipeline wrote it: by protobuf, and without the label where there is none."""
    features = {
        "image_uri": tf.train.Feature(bytes_list=tf.train.BytesList(value=[uri.encode()])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=embedding)),
        **more,
    }
    if label_ids:
        features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=label_ids))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path: str, records: list[bytes]) -> str:
    with tf.io.TFRecordWriter(path, "GZIP" if path.endswith(".gz") else "") as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture
def dictionary(tmp_path) -> str:
    path = tmp_path / "dict.txt"
    path.write_text("hugs\nnot-hugs\n")
    return str(path)


def read(*paths: str, dictionary: str, unlabeled: str = "drop"):
    found = find_record_sets(paths, flag="train_data_paths", input_dict=dictionary)
    require_agreement(found)
    assert not any(one.verified for one in found)
    return read_dataset(found, flag="train_data_paths", unlabeled=unlabeled)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_numbered_set_trains_with_a_dictionary(tmp_path, dictionary, suffix):
    for shard in range(2):
        rows = [2 * shard, 2 * shard + 1]
        write(
            f"{tmp_path}/train-0000{shard}-of-00002.tfrecord{suffix}",
            [example(f"gs://b/{row}.jpg", EMBEDDINGS[row], [row % 2] if row else []) for row in rows],
        )
    data = read(f"{tmp_path}/train*", dictionary=dictionary)
    np.testing.assert_array_equal(data.embeddings.array, EMBEDDINGS[1:])
    assert list(data.uris) == [f"gs://b/{row}.jpg" for row in (1, 2, 3)]
    assert data.labels == ("hugs", "not-hugs")
    assert data.first_label_ids.tolist() == [1, 0, 1]
    data = read(f"{tmp_path}/train*", dictionary=dictionary, unlabeled="default_class")
    assert data.labels == ("hugs", "not-hugs", "unlabeled")
    assert data.first_label_ids.tolist() == [2, 1, 0, 1]


def test_files_of_any_name_are_sets_of_their_own(tmp_path, dictionary):
    for name in ("a.tfrecord", "b.bin"):
        write(f"{tmp_path}/{name}", [example(name, EMBEDDINGS[0], [1])])
    assert list(read(f"{tmp_path}/a.tfrecord", f"{tmp_path}/b.bin", dictionary=dictionary).uris) == [
        "a.tfrecord",
        "b.bin",
    ]


def test_without_the_dictionary_the_flag_is_named(tmp_path):
    write(f"{tmp_path}/train-00000-of-00001.tfrecord", [example("a", EMBEDDINGS[0], [1])])
    with pytest.raises(InputError, match="--input_dict"):
        find_record_sets([f"{tmp_path}/train*"], flag="train_data_paths")


def test_a_missing_number_is_told(tmp_path, dictionary):
    write(f"{tmp_path}/train-00000-of-00003.tfrecord", [example("a", EMBEDDINGS[0], [1])])
    write(f"{tmp_path}/train-00002-of-00003.tfrecord", [example("a", EMBEDDINGS[0], [1])])
    with pytest.raises(InputError, match="numbered as 3, and number 1 is not among"):
        read(f"{tmp_path}/train*", dictionary=dictionary)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path, dictionary):
    path = write(f"{tmp_path}/a.tfrecord", [example("a", EMBEDDINGS[0], [1])])
    with open(path, "r+b") as stream:
        stream.seek(40)
        byte = stream.read(1)
        stream.seek(40)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(InputError, match=r"a\.tfrecord cannot be read as a TFRecord file"):
        read(path, dictionary=dictionary)


def test_a_file_that_changes_after_it_was_looked_at_is_found(tmp_path, dictionary):
    path = write(f"{tmp_path}/a.tfrecord", [example("a", EMBEDDINGS[0], [1])])
    found = find_record_sets([path], flag="eval_data_paths", input_dict=dictionary)
    write(path, [example("b", EMBEDDINGS[0], [1])])
    with pytest.raises(InputError, match="was damaged or replaced"):
        read_dataset(found, flag="eval_data_paths")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"nonsense", "not a tf.Example"),
        (tf.train.Example().SerializeToString(), "Received: nothing"),
        (example("a", [], [1]), "is empty"),
    ],
    ids=["nonsense", "nothing", "no embedding"],  # Protobuf's bytes differ from process to process.
)
def test_other_records_are_refused(tmp_path, dictionary, record, words):
    with pytest.raises(InputError, match=words):
        read(write(f"{tmp_path}/a.tfrecord", [record]), dictionary=dictionary)


def test_an_empty_file_and_no_dictionary(tmp_path, dictionary):
    path = write(f"{tmp_path}/a.tfrecord", [])
    with pytest.raises(InputError, match="holds no records"):
        read(path, dictionary=dictionary)
    with pytest.raises(InputError, match=r"--input_dict: cannot read .*nowhere"):
        read(path, dictionary=f"{tmp_path}/nowhere.txt")


def test_a_set_of_ours_keeps_its_manifest_and_must_have_the_same_labels(tmp_path, write_set, dictionary):
    prefix = write_set(f"{tmp_path}/train", EMBEDDINGS[:, :3], [[0]] * 4, labels=("hugs", "not-hugs"))
    (found,) = find_record_sets([prefix], flag="train_data_paths", input_dict=dictionary)
    assert found.verified
    with pytest.raises(InputError, match="made elsewhere"):
        path = write(f"{tmp_path}/a.tfrecord", [example("a", EMBEDDINGS[0, :3], [1])])
        require_agreement([found, *find_record_sets([path], flag="eval_data_paths", input_dict=dictionary)])
    prefix = write_set(f"{tmp_path}/other", EMBEDDINGS[:, :3], [[0]] * 4, labels=("hugs", "cactus"))
    with pytest.raises(InputError, match="label 1 is 'cactus' against 'not-hugs'"):
        find_record_sets([prefix], flag="train_data_paths", input_dict=dictionary)


def test_an_unfinished_set_of_ours_is_no_set_of_others(tmp_path, write_set, dictionary):
    prefix = write_set(f"{tmp_path}/train", EMBEDDINGS[:, :3], [[0]] * 4)
    os.remove(f"{tmp_path}/_train/manifest.json")
    with pytest.raises(InputError, match="is incomplete"):
        find_record_sets([f"{prefix}*"], flag="train_data_paths", input_dict=dictionary)


PROGRAM = """
import sys
from configs.program import run_program
from trainer.data.record_sets import find_record_sets
run_program(lambda _: find_record_sets([sys.argv[1]], flag="train_data_paths", input_dict=sys.argv[2]) and 0)
"""


@pytest.mark.parametrize("compressed", [False, True])
def test_a_record_that_claims_more_than_there_is_memory_is_one_line(tmp_path, dictionary, compressed):
    length = struct.pack("<Q", 1 << 40)
    content = length + struct.pack("<I", _masked_crc(length)) + b"x" * 100
    path = tmp_path / ("a.tfrecord.gz" if compressed else "a.tfrecord")
    path.write_bytes(gzip.compress(content) if compressed else content)
    # In a process of its own, which TensorFlow's reader ended with SIGSEGV.
    done = end_program(start_program(["-c", PROGRAM, str(path), dictionary]), expect=2)
    assert done[1].startswith("error: --train_data_paths: ")
    assert "a record of 1099511627776 bytes" in done[1]
