import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest

from preprocess.jobs.block_results import CONTENT_DTYPE, BlockResult, PartFile
from preprocess.jobs.commit import JobFailed, finish_record_set
from preprocess.jobs.estimate import Estimate, exactly
from preprocess.jobs.finished_set import find_damage
from preprocess.jobs.job import DEFINITION_NAME, JOURNAL_NAME, Retry
from preprocess.jobs.journal import commit_journal, journal_path, note_replaced
from preprocess.jobs.planned_cost import PlannedCost
from preprocess.records.record_set import Manifest, sidecar_path
from preprocess.storage.base import LocalStorage, write_file
from tests.support.stand_ins import IDENTITY, INFO, make_job


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path)


def distinct_content(index, records):
    """Content of which no image is there twice."""
    content = np.zeros(records, CONTENT_DTYPE)
    content["image"] = [bytes([index + 1, number + 1] * 8) for number in range(records)]
    return content.tobytes()


def part(job, name, data, records):
    path = f"{job.parts_dir}/{name}"
    write_file(LocalStorage(), path, data)
    name = f"_train/{pathlib.Path(path).parent.name}/{name}"
    return PartFile(name, records, len(data), hashlib.sha256(data).hexdigest())


def block(job, index, *, rows, embedded, failed=None, **changes):
    name = f"{index}"
    result = BlockResult(
        order=(0, index),
        rows=rows,
        sources={"computed": embedded} if embedded else {},
        failed=failed or {},
        skipped={},
        label_counts={1: embedded},
        unlabeled=0,
        content=distinct_content(index, embedded),
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
        "blocks.jsonl",
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
def test_wrong_row_accounting_leaves_the_set_unfinished(tmp_path, job, blocks):
    report = finish(job, *(block(job, index, **fields) for index, fields in enumerate(blocks)))
    assert report["status"] == "books_do_not_balance"
    assert not (tmp_path / "out" / "_train" / "manifest.json").exists()


def test_too_many_failures_touch_nothing_of_an_older_set(tmp_path, job):
    finish(job, block(job, 0, rows=10, embedded=10))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    stricter = dataclasses.replace(job, definition={"seed": 1}, run_id="r2", max_failed_percent=39)
    report = finish(stricter, block(stricter, 1, rows=10, embedded=6, failed={"not_found": 4}))
    assert (report["status"], report["failed_percent"]) == ("too_many_failed", 40)
    assert "40 % of the rows to embed failed, more than max_failed_percent (39) allows" in report["error"]
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if stricter.key not in str(path)} == before
    # Dead letters and parts wait for the next run.
    names = sorted(path.name for path in (tmp_path / "out/_train" / f"parts-{stricter.key}").iterdir())
    assert names == ["1.failed", "1.tfrecord", "failed.jsonl", "report.json", "skipped.jsonl"]


def test_a_set_without_records_is_not_finished(tmp_path, job):
    report = finish(job, block(job, 0, rows=10, embedded=0, failed={"not_found": 10}))
    assert report["status"] == "nothing_embedded"
    assert not (tmp_path / "out" / "_train" / "manifest.json").exists()


def test_an_older_set_goes_only_when_the_new_one_is_there(tmp_path, job):
    finish(job, *(block(job, index, rows=2, embedded=2) for index in range(5)))
    neighbour = tmp_path / "out" / "train-extra-00000-of-00001.tfrecord"
    neighbour.write_text("another set's")
    newer = dataclasses.replace(job, run_id="r2")
    note_replaced(newer, LocalStorage(), jobs=())
    finish(newer, block(newer, 0, rows=10, embedded=10))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_train", "train-00000-of-00001.tfrecord", neighbour.name]


def test_the_last_step_may_run_twice(tmp_path, job):
    blocks = [block(job, 0, rows=10, embedded=10)]
    first = finish(job, *blocks)
    assert finish(job, *blocks) == first
    assert (tmp_path / "out" / "train-00000-of-00001.tfrecord").read_text() == "shard 0"


class TellsOfChanges(LocalStorage):
    """Storage that calls `_change` before each change."""

    def create(self, path, *, keep_partial=False, durable=True):
        self._change()
        return super().create(path, keep_partial=keep_partial, durable=durable)

    def move(self, source, target):
        self._change()
        super().move(source, target)

    def delete_file(self, path):
        self._change()
        super().delete_file(path)

    def delete_tree(self, path):
        self._change()
        super().delete_tree(path)


class StopsAt(TellsOfChanges):
    """Storage that is gone after so many changes."""

    def __init__(self, changes):
        self.left = changes

    def _change(self):
        self.left -= 1
        if self.left < 0:
            raise OSError("gone")


def test_whatever_step_it_is_stopped_at_the_journal_gives_the_set(tmp_path, job):
    def files():
        return {
            path.name: path.read_bytes()
            for path in (tmp_path / "out").rglob("*")
            if path.is_file() and path.name not in ("report.json", "blocks.jsonl") and "parts-" not in str(path)
        }

    def blocks():
        return [block(job, n, rows=5, embedded=4 - n, failed={"not_found": 1 + n}) for n in range(2)]

    # An older set with as many shards, so that names clash.
    older = dataclasses.replace(job, definition={"seed": 9}, run_id="r0", rows_expected=6)
    finish(older, *(block(older, n + 2, rows=3, embedded=3) for n in range(2)))
    note_replaced(job, LocalStorage(), jobs=())
    shutil.copytree(tmp_path / "out", tmp_path / "older")
    finish(job, *blocks())
    undisturbed = files()
    stopped = 0
    for changes in itertools.count():
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "older", tmp_path / "out")
        results = blocks()
        before = files()
        try:
            finish_record_set(results, job=dataclasses.replace(job, run_id="r2"), storage=StopsAt(changes))
        except OSError:
            stopped += 1
        else:
            break
        if not pathlib.Path(journal_path(job)).exists():
            report = json.loads(pathlib.Path(sidecar_path(job.output_prefix, "report.json")).read_text())
            if report["run_id"] == "r2":  # Stopped when only the parts were left to delete: the set is finished.
                assert undisturbed.items() <= files().items()
                continue
            assert files() == before  # The older set is whole.
            finish_record_set(results, job=dataclasses.replace(job, run_id="r3"), storage=LocalStorage())
        else:
            commit_journal(dataclasses.replace(job, run_id="r3"), LocalStorage())
        assert files() == undisturbed
    assert stopped >= 10


def test_stopped_while_the_parts_are_deleted_the_set_is_finished_and_no_journal_is_left(tmp_path, job):
    class StopsWithin(LocalStorage):
        def delete_file(self, path):
            if path.endswith("1.tfrecord"):
                raise OSError("gone")
            super().delete_file(path)

    results = [block(job, n, rows=5, embedded=4, failed={"not_found": 1}) for n in range(2)]
    write_file(LocalStorage(), f"{job.parts_dir}/{DEFINITION_NAME}", b"{}")
    write_file(LocalStorage(), f"{job.parts_dir}/2.tfrecord", b"of another run")
    finish_record_set(results, job=job, storage=StopsWithin())
    manifest = Manifest.from_bytes(
        pathlib.Path(sidecar_path(job.output_prefix, "manifest.json")).read_bytes(), where="manifest.json"
    )
    assert manifest.records == 8
    left = [path.name for path in pathlib.Path(job.parts_dir).iterdir()]
    assert left
    # What remains says of itself neither that it is to be finished nor that a job is unfinished.
    assert not {JOURNAL_NAME, DEFINITION_NAME} & set(left)


def test_a_lost_part_fails_the_job(job):
    result = block(job, 0, rows=10, embedded=10)
    LocalStorage().delete_tree(job.parts_dir)
    with pytest.raises(JobFailed, match="is gone"):
        finish(job, result)


def test_another_set_s_shard_does_not_pass_for_one_that_was_moved(job):
    older = dataclasses.replace(job, definition={"seed": 9}, run_id="r0")
    finish(older, block(older, 0, rows=10, embedded=10))
    result = block(job, 1, rows=10, embedded=10)
    LocalStorage().delete_tree(job.parts_dir)
    with pytest.raises(JobFailed, match="is gone"):
        finish(job, result)


def test_workers_with_different_backbones_fail_the_job(job):
    other = dataclasses.replace(IDENTITY, weights_digest="sha256:1")
    with pytest.raises(JobFailed, match="same backbone"):
        finish(job, block(job, 0, rows=5, embedded=5), block(job, 1, rows=5, embedded=5, backbone=other))


PLANNED_COST = PlannedCost(
    where="here",
    wall_sec=Estimate(1, 2, 3),
    images_per_sec=Estimate(3, 5, 10),
    read_bytes=Estimate(900, 1000, 1200),
    decode_sec_per_image=Estimate(0.01, 0.02, 0.03),
    failed_percent=exactly(20),
)


def test_the_report_compares_what_was_predicted_with_what_it_took(job):
    job = dataclasses.replace(job, planned_cost=PLANNED_COST)
    report = finish(
        job,
        block(job, 0, rows=6, embedded=6, read_bytes=600),
        block(job, 1, rows=4, embedded=2, failed={"truncated": 2}, read_bytes=500),
    )
    assert report["read_bytes"] == 1100
    prediction = report["prediction"]
    assert (prediction["where"], prediction["compared"], prediction["why_not"]) == ("here", True, None)
    quantities = prediction["quantities"]
    assert quantities["wall_sec"] == {"low": 1, "expected": 2, "high": 3, "actual": report["wall_sec"]}
    assert quantities["images_per_sec"]["actual"] == report["images_per_sec"]
    assert quantities["read_bytes"]["actual"] == 1100
    assert quantities["decode_sec_per_image"]["actual"] == 0.4 / 8
    assert quantities["failed_percent"]["actual"] == 20


@pytest.mark.parametrize(
    ("sources", "retry", "why_not"),
    [
        ({"computed": 7, "earlier_run": 3}, None, "an earlier run embedded 3 of the records"),
        ({"computed": 7, "cache": 3}, None, "the cache gave 3 of the records"),
        ({"computed": 10}, Retry(), "only rows that had failed were tried again"),
    ],
)
def test_what_was_not_done_in_this_run_is_not_compared(job, sources, retry, why_not):
    job = dataclasses.replace(job, planned_cost=PLANNED_COST, retry=retry)
    prediction = finish(job, block(job, 0, rows=10, embedded=10, sources=sources))["prediction"]
    assert (prediction["compared"], prediction["why_not"]) == (False, why_not)
    assert prediction["quantities"]["wall_sec"] == {"low": 1, "expected": 2, "high": 3, "actual": None}


def test_without_a_planned_cost_there_is_nothing_to_compare(job):
    assert finish(job, block(job, 0, rows=10, embedded=10))["prediction"] is None


def test_a_block_s_line_of_an_earlier_version_is_read(job):
    line = json.loads(block(job, 0, rows=10, embedded=10, read_bytes=5).to_json_line())
    del line["read_bytes"]
    assert BlockResult.from_json(json.dumps(line).encode(), where="blocks.jsonl").read_bytes == 0


class RunsAnotherTry(TellsOfChanges):
    """Storage before the n-th change of which the last step is tried a second time, and gets to its end."""

    def __init__(self, changes, another_try):
        self.left = changes
        self._another_try = another_try

    def _change(self):
        self.left -= 1
        if self.left == -1:
            self._another_try()


def test_two_tries_at_the_last_step_that_overlap_end_in_a_whole_set(tmp_path, job):
    """Beam may run it twice, at once: one is held before each of its changes while the other does all of it."""
    older = dataclasses.replace(job, definition={"seed": 9}, run_id="r0", rows_expected=6)
    finish(older, *(block(older, n + 2, rows=3, embedded=3) for n in range(2)))
    shutil.copytree(tmp_path / "out", tmp_path / "older")
    for changes in itertools.count():
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "older", tmp_path / "out")
        note_replaced(job, LocalStorage(), jobs=())
        results = [block(job, n, rows=5, embedded=4, failed={"not_found": 1}) for n in range(2)]
        storage = RunsAnotherTry(changes, lambda results=results: finish(job, *results))
        report = finish_record_set(results, job=job, storage=storage)
        assert (report["status"], report["embedded"]) == ("complete", 8)
        assert find_damage(job.output_prefix, LocalStorage(), digests=True) == []
        assert (tmp_path / "out/_train/failed.jsonl").read_text() == "failed 0\nfailed 1\n"
        if storage.left >= 0:
            break
    assert changes > 15


def test_a_run_deletes_nothing_of_another_run_of_the_same_job(tmp_path, job):
    """Two runs of one job in a bucket, where no lock keeps them apart: the last to end counts, and the set is whole."""
    first = [block(job, n, rows=5, embedded=5) for n in range(2)]
    job2 = dataclasses.replace(job, run_id="r2")
    second = [
        dataclasses.replace(b, shard=part(job, f"second-{n}.tfrecord", f"shard {n}".encode(), 5))
        for n, b in enumerate(first)
    ]
    others = pathlib.Path(job.parts_dir) / "00000-0000009-of-a-third-run.tfrecord"
    others.write_text("being written")
    finish(job, *first)
    assert (pathlib.Path(job.parts_dir) / "second-0.tfrecord").exists()
    finish(job2, *second)
    assert find_damage(job.output_prefix, LocalStorage(), digests=True) == []
    assert [path.name for path in pathlib.Path(job.parts_dir).iterdir()] == [others.name]


@pytest.mark.parametrize("how", ["gone", "cut", "named twice"])
def test_what_is_wrong_with_the_parts_is_found_before_an_older_set_is_touched(tmp_path, job, how):
    finish(job, block(job, 0, rows=10, embedded=10))
    newer = dataclasses.replace(job, definition={"seed": 1}, run_id="r2")
    note_replaced(newer, LocalStorage(), jobs=())
    results = [block(newer, n, rows=5, embedded=5) for n in range(2)]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    path = pathlib.Path(newer.parts_dir) / "1.tfrecord"
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        results[1] = dataclasses.replace(results[1], shard=results[0].shard)
    with pytest.raises(JobFailed, match="is gone|has 6 bytes, 7 were written|name the same shard"):
        finish(newer, *results)
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before.items() - after.items() <= {(path, b"shard 1")}
    assert find_damage(job.output_prefix, LocalStorage(), digests=True) == []


def timed(job, index, *, first, last, images, first_images=8):
    moments = {"first_batch_at": job.started.timestamp() + first, "last_batch_at": job.started.timestamp() + last}
    return block(job, index, rows=images, embedded=images, first_batch_images=first_images, **moments)


def test_the_rate_of_a_report_does_not_contain_the_start(job):
    """14 s until the first batch of 8, and then 186 images in 3 s."""
    report = finish(job, timed(job, 0, first=14, last=16, images=100), timed(job, 1, first=15, last=17, images=94))
    assert report["startup_sec"] == pytest.approx(14, abs=0.01)
    assert report["steady_images_per_sec"] == pytest.approx(62, abs=0.01)


def test_of_few_images_no_rate_is_reported(job):
    report = finish(job, timed(job, 0, first=14, last=14.1, images=20))
    assert report["startup_sec"] == pytest.approx(14, abs=0.01)
    assert report["steady_images_per_sec"] is None


def test_what_earlier_runs_embedded_has_no_times(job):
    report = finish(job, timed(job, 0, first=14, last=17, images=100).of_earlier_run())
    assert (report["startup_sec"], report["steady_images_per_sec"]) == (None, None)
