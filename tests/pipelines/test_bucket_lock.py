"""Two runs on one output in a bucket, as processes of their own: one at a time, and whoever lost its turn stops."""

import hashlib
import json
import os
import signal
import time

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from tests.support.photos import write_photos
from tests.support.programs import end_program, start_program

_ROWS = 100
_LOCK = "out/_train/.lock"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=8)


def start(gcs, *flags, batch_sec=0.0):
    command = ["-m", "tests.support.slow_job", str(batch_sec), "--weights", "random"]
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
    # Slow enough for both to be at it at the same time, whichever has started first.
    runs = [start(gcs, batch_sec=0.7), start(gcs, batch_sec=0.7)]
    said = {}
    for process in runs:
        _, stderr = process.communicate(timeout=300)
        assert "Traceback" not in stderr
        said[process.returncode] = stderr
    assert sorted(said) == [0, 2], said
    assert "another process is writing 'gs://bucket/out/train' at this moment (pipelines.embed, process" in said[2]
    assert said[2].count("\n") == 1
    require_whole(gcs)
    stdout, _ = end_program(start(gcs))
    assert "nothing to do" in stdout


def test_a_run_that_was_suspended_and_has_lost_its_lease_changes_nothing(gcs):
    first = start(gcs, batch_sec=0.3)
    wait_for(has_parts(gcs), first)
    os.killpg(first.pid, signal.SIGSTOP)
    gcs.make_older("bucket", _LOCK, 61)
    end_program(start(gcs))
    require_whole(gcs)
    before = {name: gcs.get("bucket", name) for name in gcs.names("bucket")}
    os.killpg(first.pid, signal.SIGCONT)
    _, stderr = end_program(first, expect=2)
    assert stderr.splitlines()[-1].startswith("error: output_path: this run has lost 'gs://bucket/out/train': ")
    left = {name: gcs.get("bucket", name) for name in gcs.names("bucket")}
    assert {name: left.get(name) for name in before} == before
    # What it had begun to write has names of its own.
    assert all("/parts-" in name for name in left.keys() - before.keys())
    stdout, _ = end_program(start(gcs))
    assert "nothing to do" in stdout
