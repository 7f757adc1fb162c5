from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest

from configs.errors import InputError
from trainer.data.record_sets import find_record_sets, require_agreement, require_disjoint

EMBEDDINGS = np.eye(3, dtype=np.float32)
LABELS = [[0], [1], [2]]


def find(*paths):
    return find_record_sets([str(path) for path in paths], flag="train_data_paths")


@pytest.fixture
def train(tmp_path, write_set):
    return write_set(str(tmp_path / "preproc" / "train"), EMBEDDINGS, LABELS)


def test_a_glob_the_expanded_glob_and_the_prefix_name_the_same_set(train):
    shards = [f"{train}-0000{i}-of-00002.tfrecord" for i in range(2)]
    assert find(f"{train}*") == find(*shards) == find(train)
    assert find(train)[0].prefix == train


def test_a_glob_that_catches_sidecars_and_several_sets(train, tmp_path, write_set):
    write_set(str(tmp_path / "preproc" / "more"), EMBEDDINGS, LABELS)
    assert [os.path.basename(found.prefix) for found in find(tmp_path / "preproc" / "*")] == ["more", "train"]


def test_a_name_with_a_bracket(tmp_path, write_set):
    prefix = write_set(str(tmp_path / "preproc[1]" / "train"), EMBEDDINGS, LABELS)
    assert find(*(f"{prefix}-0000{i}-of-00002.tfrecord" for i in range(2)))[0].prefix == prefix


@pytest.mark.parametrize("folder", ["preproc [2023]", "a,b", "what? *", "_out", "[a]/[b]"])
@pytest.mark.parametrize("name", ["train", "_train", "train[1]"])
def test_names_that_look_like_patterns_or_sidecars(tmp_path, write_set, folder, name):
    prefix = write_set(str(tmp_path / folder / name), EMBEDDINGS, LABELS)
    (tmp_path / "preproc 2").mkdir()
    (tmp_path / "preproc 2" / "train-00000-of-00002.tfrecord").touch()
    assert find(prefix)[0].prefix == prefix
    if "[" not in name:
        assert find(f"{prefix}*")[0].prefix == prefix
    assert [found.prefix for found in find(tmp_path / folder / "*")] == [prefix]


def test_nothing_matches(train):
    with pytest.raises(InputError, match=r"--train_data_paths: nothing matches '.*trian\*'"):
        find(train.replace("train", "trian") + "*")


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        find(tmp_path / "nowhere" / "train*")


def test_only_sidecars_match(train):
    with pytest.raises(InputError, match="holds no records"):
        find(os.path.join(os.path.dirname(train), "_train*"))


def test_a_folder_is_not_a_glob(train):
    with pytest.raises(InputError, match="is a folder"):
        find(os.path.dirname(train))


def test_a_file_that_is_no_shard(train):
    with open(f"{train}.csv", "w") as stream:
        stream.write("a,b\n")
    with pytest.raises(InputError, match=r"train\.csv is a list of photos"):
        find(f"{train}*")


def test_a_set_without_a_manifest_is_incomplete(train):
    shutil.rmtree(os.path.join(os.path.dirname(train), "_train"))
    with pytest.raises(InputError, match=r"train is incomplete.*Run the pipeline to its end"):
        find(f"{train}*")


def test_a_shard_missing_on_disk(train):
    os.remove(f"{train}-00001-of-00002.tfrecord")
    with pytest.raises(InputError, match=r"lists train-00001-of-00002\.tfrecord, and there is no such file"):
        find(f"{train}*")


def test_a_shard_of_another_size(train):
    with open(f"{train}-00001-of-00002.tfrecord", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord has \d+ bytes"):
        find(f"{train}*")


def test_a_glob_that_selects_part_of_a_set(train):
    with pytest.raises(InputError, match=r"only part of .*train-00001-of-00002\.tfrecord is missing"):
        find(f"{train}-00000*")


def test_an_empty_set(tmp_path, write_set):
    prefix = write_set(str(tmp_path / "train"), EMBEDDINGS[:0], [], num_shards=1)
    with pytest.raises(InputError, match="holds no records"):
        find(f"{prefix}*")


def test_leftovers_of_an_earlier_run_are_set_aside(train):
    shutil.copy(f"{train}-00000-of-00002.tfrecord", f"{train}-00000-of-00009.tfrecord")
    assert [os.path.basename(path) for path in find(f"{train}*")[0].stale_files] == ["train-00000-of-00009.tfrecord"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("weights_digest", "sha256:" + "1" * 64, r"RANDOM weights \(seed 0\) \(sha256:0+…\) against"),
        ("architecture", "mobilenet", "the network is inception_v3 against mobilenet"),
        ("image_definition", "other/9", "the image definition is"),
        ("embedding_size", 4, "the embedding size is 3 against 4"),
    ],
)
def test_two_backbones_are_refused_in_words(train, write_set, mean_colour_identity, field, value, words):
    other = dataclasses.replace(mean_colour_identity, **{field: value})
    embeddings = np.zeros((3, other.embedding_size), np.float32)
    prefix = write_set(train.replace("train", "eval"), embeddings, LABELS, identity=other)
    with pytest.raises(InputError, match=words):
        require_agreement([*find(f"{train}*"), *find(f"{prefix}*")])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("red", "blue", "green"), "label 1 is 'green' against 'blue'"),
        (("red", "green", "blue", "grey"), "3 labels against 4"),
    ],
)
def test_two_dictionaries_are_refused(train, write_set, labels, words):
    prefix = write_set(train.replace("train", "eval"), EMBEDDINGS, LABELS, labels=labels)
    with pytest.raises(InputError, match=words):
        require_agreement([*find(f"{train}*"), *find(f"{prefix}*")])


def test_a_set_may_not_be_trained_and_measured_on(train):
    with pytest.raises(InputError, match=r"train is in --train_data_paths and in --eval_data_paths"):
        require_disjoint(find(f"{train}*"), find(train), flag="eval_data_paths")


def test_a_name_without_a_star_is_exactly_one_set(train, write_set):
    corrected = write_set(f"{train}-corrected", EMBEDDINGS, LABELS)
    assert [found.prefix for found in find(train)] == [train]
    assert [found.prefix for found in find(f"{train}*")] == [train, corrected]


def test_a_list_must_be_embedded_first(train):
    path = f"{train}.csv"
    with open(path, "w") as stream:
        stream.write("a,b\n")
    with pytest.raises(InputError, match=r"is a list of photos, not a record set\. Embed it first: .*hugs embed"):
        find(path)
