import dataclasses
import fnmatch
import json

import pytest

from configs.errors import InputError
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.record_set import Manifest, Shard, definitions_glob, set_of_shard, shard_name, sidecar_dir
from preprocess.storage.base import LocalStorage, write_file

BACKBONE = BackboneIdentity(
    architecture="inception_v3",
    weights="random",
    seed=3,
    weights_digest="sha256:00",
    embedding_size=2048,
    image_definition="test/1",
)
MANIFEST = Manifest(
    backbone=BACKBONE,
    labels=("daisy", "été"),
    compression="gzip",
    records=3,
    shards=(
        Shard(name="train-00000-of-00002.tfrecord.gz", records=1, num_bytes=10, sha256="aa"),
        Shard(name="train-00001-of-00002.tfrecord.gz", records=2, num_bytes=20, sha256="bb"),
    ),
)


def test_names():
    assert shard_name("train", 3, 12, "none") == "train-00003-of-00012.tfrecord"
    assert shard_name("train", 3, 12, "gzip") == "train-00003-of-00012.tfrecord.gz"
    assert set_of_shard("gs://b/p/train-00003-of-00012.tfrecord.gz") == "gs://b/p/train"
    assert set_of_shard("train-00003-of-00012.tfrecord") == "train"
    assert set_of_shard("out/train.csv") is None
    assert sidecar_dir("out/preproc/train") == "out/preproc/_train"
    assert sidecar_dir("train") == "_train"
    assert not fnmatch.fnmatch("_train", "train*")


def test_a_manifest_comes_back():
    assert Manifest.from_bytes(MANIFEST.to_bytes(), where="m") == MANIFEST
    assert json.loads(MANIFEST.to_bytes())["backbone"]["random_weights"] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(format=9), "manifest format 9"),
        (lambda data: data.update(records=4), "add up to 3 records, the manifest says 4"),
        (lambda data: data.pop("labels"), "missing or wrong"),
        (lambda data: data.pop("backbone"), "no valid backbone"),
        (lambda data: data["backbone"].pop("weights_digest"), "no valid backbone"),
        (lambda data: data["shards"][0].pop("sha256"), "missing or wrong"),
        (lambda data: data["shards"][0].update(num_bytes=-1), "a count is not negative, as -1 is"),
        (lambda data: (data["shards"][0].update(records=-1), data.update(records=1)), "a count is not negative"),
        (lambda data: data["shards"][0].update(name="../../elsewhere"), "the name of a file beside"),
        (lambda data: data["shards"][0].update(name="a\0b"), "the name of a file beside"),
        (lambda data: data["shards"][0].update(name=""), "the name of a file beside"),
        (lambda data: data["shards"].append(data["shards"][0]) or data.update(records=4), "listed more than once"),
        (lambda data: data.update(records=3.5), "a count is wanted, not 3.5"),
    ],
)
def test_a_manifest_that_is_wrong_says_so(change, words):
    data = json.loads(MANIFEST.to_bytes())
    change(data)
    with pytest.raises(InputError, match=r"^out/_train/manifest.json: ") as error:
        Manifest.from_bytes(json.dumps(data).encode(), where="out/_train/manifest.json")
    assert words in str(error.value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff"])
def test_what_is_no_manifest_says_so(raw):
    with pytest.raises(InputError, match="m: not the manifest of a record set"):
        Manifest.from_bytes(raw, where="m")


def test_backbones_agree_by_what_they_are_not_by_where_they_lay():
    moved = dataclasses.replace(BACKBONE, weights="elsewhere.h5", seed=None)
    assert BACKBONE.agrees_with(moved)
    assert not BACKBONE.agrees_with(dataclasses.replace(BACKBONE, weights_digest="sha256:01"))
    assert not BACKBONE.agrees_with(dataclasses.replace(BACKBONE, image_definition="test/2"))
    assert BACKBONE.describe() == "inception_v3 with RANDOM weights (seed 3)"


def test_unfinished_jobs_are_those_of_this_very_set(tmp_path):
    storage = LocalStorage()
    own, other = (str(tmp_path / folder / "train") for folder in ("photos [1]", "photos 1"))
    for prefix in (own, other):
        write_file(storage, f"{sidecar_dir(prefix)}/parts-0123456789ab/job.json", b"{}")
    assert storage.match(definitions_glob(own)) == [f"{sidecar_dir(own)}/parts-0123456789ab/job.json"]
