import os
import signal
import stat
import subprocess
import sys

import pytest

from preprocess.storage.scratch import PREFIX, Scratch, scratch_folder

HOLDS_ONE = """
import os, sys, time
from preprocess.storage.scratch import Scratch
scratch = Scratch(sys.argv[1])
open(os.path.join(scratch.path, "graph.pb"), "wb").close()
print(scratch.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def others(tmp_path):
    """Starts a process that holds a folder; gives the process and the folder."""
    processes = []

    def start():
        process = subprocess.Popen([sys.executable, "-c", HOLDS_ONE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_folder_is_its_maker_s_and_goes_with_it(tmp_path):
    os.umask(before := os.umask(0))
    with scratch_folder(str(tmp_path)) as folder:
        assert os.listdir(folder) == []
        assert os.path.dirname(folder).startswith(str(tmp_path / PREFIX))
        assert stat.S_IMODE(os.stat(os.path.dirname(folder)).st_mode) == 0o700
    assert os.listdir(tmp_path) == []
    assert os.umask(before) == before
    kept = Scratch(str(tmp_path))
    assert os.listdir(tmp_path)
    del kept
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_and_what_a_living_one_has_stays(tmp_path, others):
    dead, left = others()
    _, used = others()
    assert os.path.exists(left)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    with scratch_folder(str(tmp_path)) as folder:
        assert not os.path.exists(left)
        assert os.path.exists(os.path.join(used, "graph.pb"))
        assert len(os.listdir(tmp_path)) == 2
        with scratch_folder(str(tmp_path)) as another:
            assert os.path.exists(folder)
            assert another != folder


def test_nothing_else_is_touched(tmp_path):
    """Neither what others made under such a name, nor links, nor files."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "in-use").touch()
    parent = tmp_path / "tmp"
    parent.mkdir()
    (parent / "hugs-file").write_text("x")
    (parent / "hugs-without-a-lock").mkdir()
    (parent / "hugs-link").symlink_to(outside)
    (parent / "hugs-linked-lock").mkdir()
    (parent / "hugs-linked-lock/in-use").symlink_to(outside / "in-use")
    if os.geteuid() == 0:
        (parent / "hugs-of-another").mkdir()
        (parent / "hugs-of-another/in-use").touch()
        os.chown(parent / "hugs-of-another", 12345, 12345)
    before = sorted(parent.rglob("*"))
    with scratch_folder(str(parent)):
        pass
    assert sorted(parent.rglob("*")) == before
    assert (outside / "in-use").exists()


def test_a_forked_child_leaves_it_alone(tmp_path):
    scratch = Scratch(str(tmp_path))
    child = os.fork()
    if child == 0:
        scratch.cleanup()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.exists(scratch.path)
