"""The files of a set are byte for byte those of earlier versions, for the same blocks in any order."""

import datetime
import hashlib
import json
import os
import pathlib
import random
import types
import uuid

import numpy as np
import pytest

from preprocess.jobs import block_writer, commit, duplicates_report, result_spool
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import finish_record_set
from preprocess.jobs.journal import commit_journal
from preprocess.lists.blocks import RowBlock
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row
from preprocess.records import digest_table
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import StandInEngine, make_job

STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
# Written by the code that joined the results of all blocks in memory.
WRITTEN_BEFORE = {
    "blocks.jsonl": "87da2851ebb3e60fcdb867c743a824e8a2701fa6f97099051b54ecd16316ec13",
    "duplicates.jsonl": "6eaf4043bd76b60d165a4abd18147e6e264464f8bfd074ad9d5705e4b7c7bdb6",
    "failed.jsonl": "d165da0e37fc4a33c21cce585a1a2cc2f7136bb3abc7f787c671c19f2a710a12",
    "shared_images.jsonl": "5777c8fa600b799ffb4e5a581b1c6ea02fec2f215834e4c3c99c5bb8179d1127",
    "skipped.jsonl": "126f100bcd15d0ae3cbe6adf2d79d9b3d845012eb3b8cae750438dc917994d50",
}
JOURNAL_BEFORE = "9e4935b088a1cb78b83127a76c19ee0d2f33ddbda8b547a1654770dead3da9e8"
REPORTED_BEFORE = {
    "status": "complete",
    "rows_read": 60,
    "embedded": 47,
    "embedded_by": {"computed": 29, "cache": 18},
    "embedding_cache": {"folder": "cache", "hits": 18, "misses": 29},
    "failed": {"not_found": 8},
    "failed_percent": 14.545,
    "skipped": {"unknown_label": 5},
    "records_per_label": {"a": 25, "b": 21},
    "records_without_label": 9,
    "duplicates": {
        "images": 13,
        "extra_records": 18,
        "images_with_different_labels": 10,
        "file": "out/_train/duplicates.jsonl",
    },
    "shared_with": [{"prefix": "other/out/train", "records": 28, "file": "out/_train/shared_images.jsonl"}],
    "read_sec": 1.0,
    "decode_sec": 1.5,
    "output": {"prefix": "out/train", "shards": 5, "num_bytes": 6867, "compression": "none"},
}


def make_results(job, *, images, failing=7, seed=0):
    """The results of five blocks of twelve rows; some of them have an image that another row has, too."""
    numbers = random.Random(seed)
    results = []
    for index in range(5):
        lines = range(12 * index + 1, 12 * index + 13)
        rows = tuple(Row(f"d/{line}.jpg", ("a",), (0,), line) for line in lines)
        block = RowBlock(list_index=0, block_index=index, list_path="list.csv", rows=rows)
        writer = BlockWriter(
            block, storage=LocalStorage(), parts_dir=job.parts_dir, compression="none", engine=StandInEngine()
        )
        for row in rows:
            if row.line % failing == 0:
                writer.write_outcome(row, RowFailure("read", "not_found", "No such file."))
            elif row.line % 11 == 0:
                writer.write_outcome(row, RowSkip("unknown_label", "Unknown."))
            else:
                image = numbers.randrange(images)
                label_ids = ((), (0,), (1,), (0, 1))[numbers.randrange(4)] if image % 3 else (image % 2,)
                labelled = Row(row.uri, (), label_ids, row.line)
                digest = hashlib.sha256(b"%d" % image).digest()
                writer.write_record(
                    labelled,
                    np.full(3, image, np.float32),
                    image_sha256=digest,
                    source=("computed", "cache")[image % 2],
                )
        writer.read_sec, writer.decode_sec = 0.1 * index, 0.3
        results.append(writer.finish())
    return results


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = iter(range(100))
    monkeypatch.setattr(block_writer, "uuid", types.SimpleNamespace(uuid4=lambda: uuid.UUID(int=next(made) << 80)))
    fields = {"rows_expected": 60, "started": STARTED, "embedding_cache": "cache"}
    other = make_job(pathlib.Path("other"), **fields)
    finish_record_set(make_results(other, images=30, seed=1), job=other, storage=LocalStorage())
    return make_job(pathlib.Path(), against=(other.output_prefix,), **fields)


def digests_in(folder):
    """The digests of the files of a set that are made of its blocks."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(folder).iterdir()
        if path.is_file() and path.name not in ("report.json", "manifest.json")
    }


def require_as_before(report):
    assert {name: report[name] for name in REPORTED_BEFORE} == REPORTED_BEFORE
    assert digests_in("out/_train") == WRITTEN_BEFORE
    shards = [json.loads(line)["shard"] for line in pathlib.Path("out/_train/blocks.jsonl").read_text().splitlines()]
    assert [shard["name"] for shard in shards] == [f"train-{number:05d}-of-00005.tfrecord" for number in range(5)]
    assert json.loads(pathlib.Path("out/_train/manifest.json").read_bytes())["shards"] == shards


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_files_are_those_of_earlier_versions(job, order):
    results = make_results(job, images=40)
    random.Random(order).shuffle(results)
    report = finish_record_set(results, job=job, storage=LocalStorage())
    require_as_before(report)


def test_the_files_are_the_same_where_everything_lies_on_the_disk(job, monkeypatch):
    for module, name in (
        (result_spool, "_MEMORY_BYTES"),
        (duplicates_report, "_MEMORY_BYTES"),
        (digest_table, "_PART_MEMORY_BYTES"),
        (digest_table, "_ADDED_AT_ONCE"),
    ):
        monkeypatch.setattr(module, name, 1)
    results = make_results(job, images=40)
    report = finish_record_set(results, job=job, storage=LocalStorage())
    require_as_before(report)
    assert not os.path.exists(job.parts_dir)


def test_what_is_left_when_it_is_stopped_is_what_earlier_versions_left(job, monkeypatch):
    """And so each version goes on with what the other one left."""
    results = make_results(job, images=40)

    def stop(*_, **__):
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "make_set", stop)
        with pytest.raises(OSError, match="stopped"):
            finish_record_set(results, job=job, storage=LocalStorage())
    assert digests_in(f"{job.parts_dir}/set") == WRITTEN_BEFORE
    assert digests_in(job.parts_dir)["blocks.jsonl"] == JOURNAL_BEFORE
    require_as_before(commit_journal(job, LocalStorage()))
