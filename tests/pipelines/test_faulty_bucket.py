"""The whole program on a bucket whose service fails, stalls and lies: the same set as on a disk, nothing lost."""

import json
import os
import pathlib
import signal
import time

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from tests.support.faulty_gcs import FaultPlan
from tests.support.photos import write_photos
from tests.support.programs import end_program, start_program

ROOT = pathlib.Path(__file__).parents[2]
_ROWS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=40, broken={40}, missing={70})


def start(source, out, *flags, environment=None, batch_sec=0.0):
    command = ["-m", "tests.support.slow_job", str(batch_sec), "--weights", "random"]
    command += ["--input_path", f"{source}/train.csv", "--input_dict", f"{source}/dict.txt"]
    command += ["--output_path", f"{out}/train", "--rows_per_shard", "25", *flags]
    return start_program(command, environment)


def run(*args, expect=0, **changes):
    return end_program(start(*args, **changes), expect=expect)


def objects(gcs):
    return {name: gcs.get("bucket", name) for name in gcs.names("bucket") if name.startswith("out/")}


def without_paths(ledger):
    return [{**json.loads(line), "list": "", "message": ""} for line in ledger.splitlines()]


def check_against_disk(gcs, data, tmp_path):
    run(data, tmp_path)
    found = objects(gcs)
    shards = {path.name: path.read_bytes() for path in tmp_path.glob("train-*")}
    assert {name.removeprefix("out/"): found[name] for name in found if "/train-" in name} == shards
    assert found["out/_train/manifest.json"] == (tmp_path / "_train/manifest.json").read_bytes()
    on_disk = (tmp_path / "_train/failed.jsonl").read_bytes()
    assert without_paths(found["out/_train/failed.jsonl"]) == without_paths(on_disk)
    assert not [name for name in found if "/parts-" in name]


def test_a_fifth_of_all_requests_fails_and_nothing_is_lost(gcs, data, tmp_path):
    gcs.plan = FaultPlan(share=0.2, seed=3)
    run("gs://bucket/data", "gs://bucket/out", "--embedding_cache", "gs://bucket/cache", environment=gcs.environment)
    assert len(gcs.faults()) >= 5  # Kinds of faults that it met.
    gcs.plan = FaultPlan()
    check_against_disk(gcs, data, tmp_path)
    report = json.loads(gcs.get("bucket", "out/_train/report.json"))
    assert report["failed"] == {"not_an_image": 1, "not_found": 1}
    assert report["embedding_cache"]["misses"] == _ROWS - 2
    assert len([name for name in gcs.names("bucket") if name.endswith(".embedding")]) == _ROWS - 2


def test_killed_a_job_in_a_bucket_goes_on_from_its_last_block(gcs, data, tmp_path):
    process = start("gs://bucket/data", "gs://bucket/out", environment=gcs.environment, batch_sec=0.15)
    while not [name for name in gcs.names("bucket") if name.endswith(".result.json")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run("gs://bucket/data", "gs://bucket/out", environment=gcs.environment)
    assert json.loads(gcs.get("bucket", "out/_train/report.json"))["embedded_by"]["earlier_run"] >= 23
    check_against_disk(gcs, data, tmp_path)


def test_a_service_that_stays_down_is_one_line_and_the_job_goes_on_once_it_is_back(gcs, data, tmp_path):
    gcs.plan = FaultPlan(share=1.0, faults=["503"], only="upload")
    flags = ["--storage_retry_sec", "1"]
    _, stderr = run("gs://bucket/data", "gs://bucket/out", *flags, environment=gcs.environment, expect=2)
    assert "cannot write to 'gs://bucket/out/train'" in stderr.splitlines()[-1]
    gcs.plan = FaultPlan()
    run("gs://bucket/data", "gs://bucket/out", *flags, environment=gcs.environment)
    check_against_disk(gcs, data, tmp_path)


def test_images_that_the_bucket_does_not_give_for_longer_than_it_is_tried_are_not_failures(gcs, data, tmp_path):
    gcs.plan = FaultPlan(share=1.0, faults=["503", "drop"], only=r"png\?alt=media", max_faults=100)
    run("gs://bucket/data", "gs://bucket/out", "--storage_retry_sec", "0", environment=gcs.environment)
    assert sum(gcs.faults().values()) == 100
    check_against_disk(gcs, data, tmp_path)


def test_a_bucket_that_gives_no_more_images_stops_the_job_and_no_row_is_entered_as_failed(gcs, data, tmp_path):
    gcs.plan = FaultPlan(share=1.0, faults=["503"], only=r"9\d\.png\?alt=media")
    flags = ["--storage_retry_sec", "0"]
    environment = gcs.environment | {"TRY_AGAIN_SEC": "0.5"}
    _, stderr = run("gs://bucket/data", "gs://bucket/out", *flags, environment=environment, expect=2)
    last = stderr.splitlines()[-1]
    assert "HTTP 503: Backend error" in last and "To go on, give the same command again: " in last
    assert not [name for name in gcs.names("bucket") if name.endswith("/report.json")]
    gcs.plan = FaultPlan()
    run("gs://bucket/data", "gs://bucket/out", *flags, environment=gcs.environment)
    assert json.loads(gcs.get("bucket", "out/_train/report.json"))["embedded_by"]["earlier_run"] >= 23
    check_against_disk(gcs, data, tmp_path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gs://bucket/nothing", "no such file: 'gs://bucket/nothing"),
        ("gs://no-such-bucket/data", "no-such-bucket"),
    ],
)
def test_what_is_not_there_is_one_line(gcs, source, words):
    _, stderr = run(source, "gs://bucket/out", environment=gcs.environment, expect=2)
    assert words in stderr
    assert stderr.count("\n") == 1
