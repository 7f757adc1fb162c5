"""Jobs that are stopped at any moment, by whatever, and started again with the same command."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from tests.support.photos import write_photos
from tests.support.programs import start_program

ROOT = pathlib.Path(__file__).parents[2]
_KILLS = 20
_ROWS = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    broken, missing = set(range(5, _ROWS, 11)), set(range(7, _ROWS, 13))
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=4, broken=broken, missing=missing)


def start(data, out, *flags, batch_sec=0.02, **popen):
    command = ["-m", "tests.support.slow_job", str(batch_sec)]
    command += ["--input_path", str(data / "train.csv"), "--input_dict", str(data / "dict.txt"), "--weights", "random"]
    command += ["--output_path", str(out / "train"), "--rows_per_shard", "25", "--max_failed_percent", "50", *flags]
    return start_program(command, **popen)


def run(data, out, *flags, batch_sec=0.0, expect=0, **popen):
    process = start(data, out, *flags, batch_sec=batch_sec, **popen)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == expect, stderr
    return stdout, stderr


def files(out):
    """What of a finished set does not depend on when and how often it was run."""
    varying = {"report.json", "blocks.jsonl", ".lock"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in varying
    }


def report_of(out):
    return json.loads((out / "_train/report.json").read_text())


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_at_random_moments_a_job_ends_with_the_set_of_an_undisturbed_one(data, tmp_path):
    run(data, tmp_path / "whole", forked=False)
    undisturbed = files(tmp_path / "whole")
    random_moments = random.Random(4)
    kills = jobs = 0
    while kills < _KILLS:
        jobs += 1
        out = tmp_path / f"job{jobs}"
        process = None
        while process is None or process.returncode != 0:
            process = start(data, out)
            # Most moments lie in the work, some in the start, and some in the end if the job gets there.
            try:
                process.communicate(timeout=random_moments.uniform(0.05, 1.5))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
            if kills >= _KILLS:
                run(data, out)
                break
        assert files(out) == undisturbed
        report = report_of(out)
        assert report["rows_read"] == _ROWS
        assert report["rows_read"] == report["embedded"] + sum(report["failed"].values())
        assert not list((out / "_train").glob("parts-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_says_how_to_go_on(data, tmp_path, number):
    process = start(data, tmp_path, batch_sec=0.2)
    wait_for(lambda: list(tmp_path.glob("_train/parts-*/*.tfrecord*")), process)
    os.killpg(process.pid, number)  # As a terminal does it: to the decoders as well.
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert "stopped. What was embedded is kept. To go on, give the same command again: " in stderr
    assert stdout == ""
    stdout, stderr = run(data, tmp_path)
    assert "going on where an earlier run was stopped" in stderr
    stdout, _ = run(data, tmp_path)
    assert "nothing to do" in stdout


def test_two_processes_do_not_write_one_set(data, tmp_path):
    first = start(data, tmp_path, batch_sec=0.2)
    wait_for(lambda: list(tmp_path.glob("_train/parts-*/*.tfrecord*")), first)
    os.killpg(first.pid, signal.SIGSTOP)  # However slow this machine is, it is still at it.
    for flags in ([], ["--overwrite"]):
        _, stderr = run(data, tmp_path, *flags, expect=2)
        assert f"another process is writing {str(tmp_path / 'train')!r} at this moment (" in stderr
        assert f"process {first.pid} of " in stderr
        assert stderr.count("\n") == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    run(data, tmp_path)


def test_another_job_s_unfinished_work_is_not_mixed_in_or_thrown_away_unasked(data, tmp_path):
    process = start(data, tmp_path, batch_sec=0.2)
    wait_for(lambda: list(tmp_path.glob("_train/parts-*/*.result.json")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = files(tmp_path)
    _, stderr = run(data, tmp_path, "--seed", "3", expect=2)
    assert "an unfinished job lies at" in stderr
    assert "differs from this one in seed." in stderr
    assert files(tmp_path) == before
    run(data, tmp_path, "--seed", "3", "--overwrite")
    assert report_of(tmp_path)["embedded_by"].keys() == {"computed"}
    assert not list((tmp_path / "_train").glob("parts-*"))


def test_a_limit_on_open_files_stops_the_job_and_no_row_is_entered_as_failed(data, tmp_path):
    import resource

    def limit_open_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))

    process = start(data, tmp_path, environment={"TRY_AGAIN_SEC": "0.5"}, preexec_fn=limit_open_files)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    last = stderr.rstrip().splitlines()[-1]
    assert "Too many open files" in last and "To go on, give the same command again: " in last
    assert "Traceback" not in stderr
    assert not list(tmp_path.rglob("report.json"))
    run(data, tmp_path)
    run(data, tmp_path / "whole")
    assert {name: data for name, data in files(tmp_path).items() if "whole" not in name} == files(tmp_path / "whole")


def test_a_full_disk_is_one_line_and_the_job_goes_on_from_there(data, tmp_path):
    import resource

    def limit_file_size():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))

    # A file that may not grow stands for a disk that is full: writing fails, at some record or other.
    process = start(data, tmp_path, preexec_fn=limit_file_size)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    last = stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "storage failed (" in last
    assert "To go on, give the same command again: " in last
    assert "Traceback" not in stderr
    assert stdout == ""
    run(data, tmp_path)
    run(data, tmp_path / "whole")
    assert {name: data for name, data in files(tmp_path).items() if "whole" not in name} == files(tmp_path / "whole")
