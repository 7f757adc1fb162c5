"""The lock on a local disk: who gets it, who is refused, what becomes of its file, and filesystems without locks."""

import errno
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

from configs.errors import InputError
from preprocess.locks.file_lock import FileLock
from preprocess.locks.lock_holder import LockLost, this_process
from preprocess.locks.output_lock import Witness, check_held, fenced, locked
from preprocess.storage.base import LocalStorage, write_file
from tests.support.programs import end_program, start_program


def take(folder, run_id="mine"):
    holder = this_process(program="test", run_id=run_id)
    return FileLock(f"{folder}/.lock", holder=holder, flag="output_path", output=str(folder))


def hold(folder, **options):
    holder = this_process(program="test", run_id="mine")
    return locked(str(folder), holder=holder, flag="output_path", output=str(folder), storage=LocalStorage(), **options)


def program(folder, **popen):
    return start_program(["-m", "tests.support.lock_program", str(folder), "60"], stdin=subprocess.PIPE, **popen)


def test_who_comes_second_is_told_who_holds_it(tmp_path):
    first = program(tmp_path)
    assert first.stdout.readline() == "held\n"
    os.killpg(first.pid, signal.SIGSTOP)  # The kernel keeps the lock of a process that is suspended.
    _, said = end_program(program(tmp_path), expect=2)
    assert said.startswith(
        f"error: folder: another process is writing {str(tmp_path)!r} at this moment (lock_program, "
    )
    assert f"process {first.pid} of " in said and said.count("\n") == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert (tmp_path / ".lock").exists()  # As a killed process leaves it.
    end_program(program(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_wins_and_none_is_left_without(tmp_path):
    inside, most, wins = [], [], []

    def start():
        for _ in range(200):
            try:
                lock = take(tmp_path)
            except InputError as error:
                assert "another process is writing" in str(error)
                continue
            inside.append(lock)
            most.append(len(inside))
            inside.remove(lock)
            wins.append(lock)
            lock.release()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(wins) >= 200 / 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_filesystem_without_locks_is_said_in_one_line_and_the_work_goes_on(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path) as lock:
        write_file(fenced(LocalStorage(), lock), str(tmp_path / "a"), b"a")
    said = capsys.readouterr().err
    assert said == (
        f"warning: no lock on {str(tmp_path)!r}, since its filesystem has none ({os.strerror(number)}): see to it that "
        "no other process writes there\n"
    )
    assert (tmp_path / "a").read_bytes() == b"a"


def test_storage_of_beam_without_locks_is_said(capsys):
    with locked(
        "s3://bucket/out",
        holder=this_process(program="test"),
        flag="output_path",
        output="s3://bucket/out",
        storage=LocalStorage(),
    ) as lock:
        assert lock is None
        check_held()
    assert "warning: no lock on 's3://bucket/out'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch, number):
    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=f"^output_path: cannot write to .*{os.strerror(number)}"):
        take(tmp_path)


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="^output_path: cannot write to"):
        take(tmp_path / "file")


def test_who_finds_its_lock_removed_changes_nothing_more(tmp_path):
    folder = tmp_path / "out"
    with hold(folder) as lock:
        storage = fenced(LocalStorage(), lock)
        check_held()
        shutil.rmtree(folder)
        other = take(folder)
        write_file(LocalStorage(), str(folder / "a"), b"other's")
        other.release()
        for change in (
            lambda: write_file(storage, str(folder / "a"), b"new"),
            lambda: storage.delete_file(str(folder / "a")),
            lambda: storage.delete_tree(str(folder)),
            lambda: storage.move(str(folder / "a"), str(folder / "b")),
            check_held,
        ):
            with pytest.raises(LockLost, match="this run has lost .*was removed while it ran"):
                change()
    assert {path.name for path in folder.iterdir()} == {"a"}
    assert (folder / "a").read_bytes() == b"other's"


def test_a_folder_that_vanished_for_good_is_no_fault_at_the_end(tmp_path):
    with hold(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_workers_in_other_processes_see_whose_lock_it_is(tmp_path):
    mine = Witness(str(tmp_path), run_id="mine", output="x", storage=LocalStorage())
    mine.confirm()  # A filesystem without locks has no such file.
    with hold(tmp_path):
        mine.confirm()
    take(tmp_path, run_id="another")
    with pytest.raises(InputError, match="this run has lost 'x'.*has taken it over"):
        mine.confirm()


def test_two_names_of_one_folder_are_one_lock(tmp_path):
    os.symlink(tmp_path, tmp_path.parent / "alias")
    lock = take(tmp_path)
    with pytest.raises(InputError, match="another process is writing"):
        take(pathlib.Path(tmp_path.parent / "alias"))
    lock.release()
