"""A disk without room is one line that names the option, wherever it is met."""

from __future__ import annotations

import contextlib
import os
import resource

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.embedded_clusters import clusters
from trainer import task
from trainer.reports.tensorboard_output import write_projector
from trainer.storage.working_folder import working_folder
from trainer.training.event_log import EventLog


@contextlib.contextmanager
def no_file_beyond(num_bytes):
    """No file of this process may grow beyond that; Python ignores the signal that comes with it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("num_bytes", "flag", "folder"),
    [(500, "log_dir", "out/logs/train"), (12_000, "output_path", "out")],
)
def test_a_run_without_room_ends_with_one_line(tmp_path, write_set, without_network, num_bytes, flag, folder):
    colours = np.random.default_rng(0).random((30, 3)).astype(np.float32)
    for name in ("train", "eval"):
        write_set(str(tmp_path / name), colours, [[i % 3] for i in range(30)])
    arguments = [f"--{name}_data_paths={tmp_path}/{name}*" for name in ("train", "eval")]
    arguments += ["--output_path", str(tmp_path / "out"), "--max_steps", "3", "--hidden_units", "0"]
    with pytest.raises(InputError) as caught, no_file_beyond(num_bytes):
        task.main(arguments)
    assert str(caught.value) == f"--{flag}: cannot write to {tmp_path}/{folder}: File too large"
    assert not os.path.exists(tmp_path / "out" / "model")
    assert task.main(arguments) == 0


def test_what_tensorboard_shows_without_room_is_one_line(tmp_path):
    dataset = clusters(20, seed=0)
    with pytest.raises(InputError, match="^--log_dir: cannot write to .*: File too large$"), no_file_beyond(10):
        write_projector(str(tmp_path / "projector"), dataset, ["a"] * 20)
    with pytest.raises(InputError, match="^--log_dir: cannot write to .*: File too large$"), no_file_beyond(10):
        log = EventLog(str(tmp_path / "events"))
        log.write(0, loss=1.0)
        log.close()


def test_faults_of_what_is_read_meanwhile_are_not_said_to_be_of_writing(tmp_path):
    folder = working_folder(str(tmp_path), flag="output_path")
    with pytest.raises(FileNotFoundError), folder.writing():
        open("/nowhere/record")  # noqa: SIM115
    with pytest.raises(InputError, match="^--output_path: cannot write to .*: No such file"), folder.writing():
        open(tmp_path / "gone" / "file", "w")  # noqa: SIM115
    with pytest.raises(ZeroDivisionError), folder.writing():
        1 / 0  # noqa: B018
