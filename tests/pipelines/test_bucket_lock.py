"""Two runs on one output in a bucket, as processes of their own: one at a time, and whoever lost its turn stops."""

import hashlib
import json
import time

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from tests.faulty_gcs import FaultyGcs
from tests.pipelines.photos import write_photos
from tests.programs import start_program

_ROWS = 100
_LOCK = "out/_train/.lock"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=8)


@pytest.fixture
def gcs(data):
    with FaultyGcs(buckets=["bucket"]) as gcs:
        for path in data.iterdir():
            gcs.put("bucket", f"data/{path.name}", path.read_bytes())
        yield gcs


def start(gcs, *flags, batch_sec=0.0):
    command = ["-m", "tests.pipelines.slow_job", str(batch_sec), "--weights", "random"]
    command += ["--input_path", "gs://bucket/data/train.csv", "--input_dict", "gs://bucket/data/dict.txt"]
    command += ["--output_path", "gs://bucket/out/train", "--rows_per_shard", "10", *flags]
    return start_program(command, gcs.environment)


def wait_for(condition, *processes):
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def has_parts(gcs, at_least=1):
    return lambda: len([name for name in gcs.names("bucket") if name.endswith(".result.json")]) >= at_least


def require_whole(gcs):
    manifest = json.loads(gcs.get("bucket", "out/_train/manifest.json"))
    assert manifest["records"] == _ROWS
    for shard in manifest["shards"]:
        assert hashlib.sha256(gcs.get("bucket", f"out/{shard['name']}")).hexdigest() == shard["sha256"]
    names = [name for name in gcs.names("bucket") if name.startswith("out/")]
    assert not [name for name in names if "/parts-" in name or name == _LOCK]


def test_two_runs_of_one_job_at_the_same_time_leave_the_set_whole(gcs):
    first = start(gcs, batch_sec=0.1)
    wait_for(has_parts(gcs), first)
    second = start(gcs, batch_sec=0.1)
    codes = []
    for process in (first, second):
        _, stderr = process.communicate(timeout=200)
        print(stderr[-1500:])
        codes.append(process.returncode)
    third = start(gcs)
    stdout, stderr = third.communicate(timeout=200)
    assert (codes, third.returncode, stderr) == ([0, 2], 0, stderr)
    assert "nothing to do" in stdout
    require_whole(gcs)
