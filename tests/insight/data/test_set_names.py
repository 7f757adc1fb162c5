from __future__ import annotations

import pytest

from insight.data.set_names import set_names
from tests.support.written_sets import COLOURS, MEAN_COLOUR
from trainer.data.record_sets import RecordSet


@pytest.mark.parametrize(
    ("prefixes", "names"),
    [
        (["/a/out/train"], ["train"]),
        (["/a/out/train", "/a/out/eval"], ["train", "eval"]),
        (["/a/2023/train", "/a/2024/train", "/a/2024/eval"], ["2023/train", "2024/train", "2024/eval"]),
        (["train", "out/train"], ["train", "out/train"]),
        (["gs://a/out/train", "gs://b/out/train"], ["a/out/train", "b/out/train"]),
        (["gs://a/train", "s3://a/train"], ["gs://a/train", "s3://a/train"]),
        (["/train", "train"], ["/train", "train"]),
    ],
)
def test_a_name_has_as_many_folders_as_tell_the_sets_apart(prefixes, names):
    from preprocess.records.record_set import Manifest

    manifest = Manifest(backbone=MEAN_COLOUR, labels=COLOURS, compression="none", records=0, shards=())
    assert list(set_names([RecordSet(prefix=prefix, manifest=manifest) for prefix in prefixes])) == names
