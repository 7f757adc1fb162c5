"""Two trainers on one output: one trains, and the other is told who does."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from preprocess.locks.lock_holder import LockLost, this_process
from preprocess.locks.output_lock import confirm_held
from preprocess.storage.gcs import GcsStorage
from tests.support.folders import files_below
from tests.support.programs import end_program, start_program
from tests.trainer.storage.test_buckets import put_folder
from trainer import task
from trainer.options import parse_options
from trainer.storage.output_locks import locked_outputs
from trainer.storage.working_folder import working_folder


def start(*flags, environment=None):
    return start_program(["-m", "tests.support.head_program", *flags], environment, tensorflow=True)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_of_two_trainers_that_start_at_once_one_trains(task_arguments, tmp_path):
    runs = [start(*task_arguments, "--max_steps", "1000") for _ in range(2)]
    said = {}
    for process in runs:
        _, stderr = process.communicate(timeout=300)
        assert "Traceback" not in stderr
        said.setdefault(process.returncode, []).append(stderr)
    # On a slow machine the second may have started when the first was done: then it goes on from its checkpoint.
    assert set(said) <= {0, 2} and said[0], said
    for stderr in said.get(2, ()):
        assert stderr.splitlines()[-1].startswith("error: --output_path: another process is writing")
    assert (tmp_path / "training/metrics.json").exists()
    assert not list(tmp_path.rglob(".lock"))


def test_a_trainer_whose_output_another_one_writes_is_told_so(task_arguments, tmp_path):
    first = start(*task_arguments, "--max_steps", "100000")
    wait_for(lambda: (tmp_path / "training/.lock").exists(), first)
    os.killpg(first.pid, signal.SIGSTOP)
    before = files_below(tmp_path)
    for flags in (
        ["--output_path", f"{tmp_path}/other/../training/"],
        ["--output_path", f"{tmp_path}/other", "--checkpoint_dir", f"{tmp_path}/training/checkpoints"],
        ["--output_path", f"{tmp_path}/other", "--log_dir", f"{tmp_path}/training/logs"],
        ["--output_path", f"{tmp_path}/other", "--export_dir", f"{tmp_path}/training/model"],
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        with pytest.raises(InputError) as refusal:
            task.main([*task_arguments, *flags])
        assert str(refusal.value).startswith(f"{flags[-2]}: another process is writing ")
        assert f"process {first.pid} of " in str(refusal.value)
    assert files_below(tmp_path) == before
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_a_killed_trainer_in_a_bucket_leaves_the_output_to_the_next(gcs, task_arguments, tmp_path):
    put_folder(gcs, tmp_path)
    arguments = [argument.replace(str(tmp_path), "gs://bucket") for argument in task_arguments]
    first = start(*arguments, "--max_steps", "100000", environment=gcs.environment)
    wait_for(lambda: "training/.lock" in gcs.names("bucket"), first)
    os.killpg(first.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match=f"--output_path: another process is writing .* process {first.pid} of "):
        task.main(arguments)
    written = {name for name in gcs.names("bucket") if name.startswith("training/") and "checkpoints" not in name}
    assert written <= {"training/.lock", "training/last_run.json"}
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    end_program(start(*arguments, environment=gcs.environment))
    assert "training/metrics.json" in gcs.names("bucket")
    assert not [name for name in gcs.names("bucket") if name.endswith(".lock")]


def test_a_trainer_whose_bucket_another_one_has_taken_over_sends_and_removes_nothing(gcs, task_arguments, tmp_path):
    arguments = [argument.replace(str(tmp_path), "gs://bucket") for argument in task_arguments]
    gcs.put("bucket", "training/metrics.json", b"the other's")
    with locked_outputs(parse_options(arguments)):
        folder = working_folder("gs://bucket/training", flag="output_path")
        lock = GcsStorage().versioned("gs://bucket/training/.lock")
        found = lock.look()
        other = dataclasses.replace(this_process(program="trainer.task"), token="other", host="elsewhere")
        assert lock.replace(other.to_text(), found)
        with pytest.raises(LockLost, match="--output_path: this run has lost .* on elsewhere"):
            confirm_held()  # As `publish` does.
        with open(os.path.join(folder.local, "metrics.json"), "w") as stream:
            stream.write("mine")
        for change in (
            lambda: folder.send(withdraw=["metrics.json"]),
            folder.send,
            lambda: folder.discard("logs"),
        ):
            with pytest.raises(LockLost):
                change()
    assert gcs.get("bucket", "training/metrics.json") == b"the other's"
    assert "training/.lock" in gcs.names("bucket")  # The other's.


def test_a_run_locks_each_of_its_folders_once(task_arguments, tmp_path):
    flags = ["--checkpoint_dir", f"{tmp_path}/c", "--log_dir", f"{tmp_path}/training/logs", "--export_dir"]
    with locked_outputs(parse_options([*task_arguments, *flags, f"{tmp_path}/training/model"])):
        assert {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob(".lock")} == {"training", "c"}
    assert not list(tmp_path.rglob(".lock"))


def test_an_evaluation_into_an_output_that_is_being_written_is_refused(without_network, task_arguments, tmp_path):
    task.main(task_arguments)
    before = files_below(tmp_path)
    index = task_arguments.index("--eval_data_paths")
    evaluate = [*task_arguments[index : index + 4], "--write_predictions"]
    with locked_outputs(parse_options(task_arguments)), pytest.raises(InputError, match="another process is writing"):
        task.main(evaluate)
    assert files_below(tmp_path) == before
    task.main(evaluate)
