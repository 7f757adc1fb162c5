import dataclasses
import datetime
import hashlib
import json

import pytest

from preprocess.finishing import Job, JobFailed, finish_record_set
from preprocess.record_set import Manifest
from preprocess.row_blocks import BlockResult, PartFile
from preprocess.storage import LocalStorage, write_file
from tests.preprocess.stand_ins import IDENTITY, INFO


@pytest.fixture
def job(tmp_path):
    return Job(
        job_id="j1",
        output_prefix=str(tmp_path / "out" / "train"),
        compression="none",
        labels=("a", "b"),
        input_paths=("list.csv",),
        rows_expected=10,
        started=datetime.datetime.now(datetime.UTC),
        versions={},
    )


def part(job, name, data, records):
    path = f"{job.parts_dir}/{name}"
    write_file(LocalStorage(), path, data)
    return PartFile(path, records, len(data), hashlib.sha256(data).hexdigest())


def block(job, index, *, rows, embedded, failed=None, **changes):
    name = f"{index}"
    result = BlockResult(
        order=(0, index),
        rows=rows,
        embedded=embedded,
        failed=failed or {},
        skipped={},
        label_counts={1: embedded},
        unlabeled=0,
        shard=part(job, f"{name}.tfrecord", f"shard {index}".encode(), embedded) if embedded else None,
        failed_ledger=part(job, f"{name}.failed", f"failed {index}\n".encode(), 1) if failed else None,
        skipped_ledger=None,
        backbone=IDENTITY,
        engine=INFO,
        read_sec=0.1,
        decode_sec=0.2,
        waited_for_images_sec=0.3,
        waited_for_engine_sec=0.4,
    )
    return dataclasses.replace(result, **changes)


def finish(job, *blocks):
    return finish_record_set(blocks, job=job, storage=LocalStorage())


def test_shards_are_numbered_in_the_order_of_the_list(tmp_path, job):
    report = finish(
        job,
        block(job, 2, rows=3, embedded=3),
        block(job, 0, rows=4, embedded=2, failed={"not_found": 2}),
        block(job, 1, rows=3, embedded=0, failed={"truncated": 3}),
    )
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "_train",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert (out / "train-00001-of-00002.tfrecord").read_text() == "shard 2"
    assert (out / "_train" / "failed.jsonl").read_text() == "failed 0\nfailed 1\n"
    assert sorted(path.name for path in (out / "_train").iterdir()) == [
        "failed.jsonl",
        "manifest.json",
        "report.json",
        "skipped.jsonl",
    ]
    assert report["status"] == "complete"
    assert report == json.loads((out / "_train" / "report.json").read_text())
    assert (report["rows_read"], report["embedded"], report["failed"]) == (
        10,
        5,
        {"truncated": 3, "not_found": 2},
    )
    assert report["records_per_label"] == {"a": 0, "b": 5}
    manifest = Manifest.from_bytes((out / "_train" / "manifest.json").read_bytes(), where="m")
    assert manifest.records == 5
    assert manifest.shards[0].sha256 == hashlib.sha256(b"shard 0").hexdigest()


@pytest.mark.parametrize(
    "blocks",
    [
        [{"rows": 9, "embedded": 9}],  # fewer rows than were counted
        [{"rows": 10, "embedded": 9}],  # a row without an outcome
        [{"rows": 10, "embedded": 9, "failed": {"x": 2}}],  # a row with two
    ],
)
def test_books_that_do_not_balance_leave_the_set_unfinished(tmp_path, job, blocks):
    report = finish(job, *(block(job, index, **fields) for index, fields in enumerate(blocks)))
    assert report["status"] == "books_do_not_balance"
    assert not (tmp_path / "out" / "_train" / "manifest.json").exists()


def test_a_set_without_records_is_not_finished(tmp_path, job):
    report = finish(job, block(job, 0, rows=10, embedded=0, failed={"not_found": 10}))
    assert report["status"] == "nothing_embedded"
    assert not (tmp_path / "out" / "_train" / "manifest.json").exists()


def test_an_older_set_goes_only_when_the_new_one_is_there(tmp_path, job):
    finish(job, *(block(job, index, rows=2, embedded=2) for index in range(5)))
    neighbour = tmp_path / "out" / "train-extra-00000-of-00001.tfrecord"
    neighbour.write_text("another set's")
    newer = dataclasses.replace(job, job_id="j2")
    finish(newer, block(newer, 0, rows=10, embedded=10))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_train", "train-00000-of-00001.tfrecord", neighbour.name]


def test_the_last_step_may_run_twice(tmp_path, job):
    blocks = [block(job, 0, rows=10, embedded=10)]
    storage = LocalStorage()
    storage.delete_tree = lambda path: None
    finish_record_set(blocks, job=job, storage=storage)
    report = finish_record_set(blocks, job=job, storage=storage)
    assert report["status"] == "complete"
    assert (tmp_path / "out" / "train-00000-of-00001.tfrecord").read_text() == "shard 0"


def test_a_lost_part_fails_the_job(job):
    result = block(job, 0, rows=10, embedded=10)
    LocalStorage().delete_tree(job.parts_dir)
    with pytest.raises(FileNotFoundError):
        finish(job, result)


def test_workers_with_different_backbones_fail_the_job(job):
    other = dataclasses.replace(IDENTITY, weights_digest="sha256:1")
    with pytest.raises(JobFailed, match="same backbone"):
        finish(job, block(job, 0, rows=5, embedded=5), block(job, 1, rows=5, embedded=5, backbone=other))
