import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from preprocess import isolated_decoder
from preprocess.image import ImageError, decode_image
from preprocess.isolated_decoder import IsolatedDecoder
from tests.preprocess.image_corpus import corpus, encode, photo

# pytest sets aside the filter that `preprocess.image` installs.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

ROOT = pathlib.Path(__file__).parents[2]


def hostile(**options):
    return IsolatedDecoder(_module="tests.preprocess.hostile_worker", **options)


def reason_of(decoder, data):
    with pytest.raises(ImageError) as caught:
        decoder(data)
    return caught.value.reason, caught.value.message


def child_pid():
    return int.from_bytes(hostile()(b"pid")[0, :4, 0].tobytes(), "little")


def wait_for_death(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def has_ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_pixels_are_those_of_decode_image():
    decoder = IsolatedDecoder()
    for sample in [sample for sample in corpus() if len(sample.data) < 500_000][::7]:
        pixels = decoder(sample.data)
        np.testing.assert_array_equal(pixels, decode_image(sample.data))
        assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous


def test_the_reasons_and_messages_are_those_of_decode_image():
    for data in (b"", b"text", b"%PDF-1.7\n", b"\xff\xd8\xff\xe0", encode(photo(300, 300), "PNG")[:-9000]):
        with pytest.raises(ImageError) as expected:
            decode_image(data)
        assert reason_of(IsolatedDecoder(), data) == (expected.value.reason, expected.value.message)
    assert reason_of(IsolatedDecoder(max_pixels=99), encode(photo(10, 10), "PNG"))[0] == "too_many_pixels"


def test_a_decoder_survives_pickling():
    decoder = pickle.loads(pickle.dumps(IsolatedDecoder(max_pixels=99, deadline_sec=2)))
    assert decoder == IsolatedDecoder(max_pixels=99, deadline_sec=2)
    with pytest.raises(ValueError, match="deadline_sec"):
        IsolatedDecoder(deadline_sec=0)


def test_a_crash_costs_one_image_and_names_the_signal():
    decoder = hostile()
    before = child_pid()
    assert reason_of(decoder, b"crash") == ("decoder_crashed", "the decoder ended with signal SIGSEGV")
    assert decoder(b"12345").max() == 5
    assert child_pid() != before
    assert reason_of(decoder, b"exit") == ("decoder_crashed", "the decoder ended with exit code 3")


def test_a_decoder_that_hangs_in_c_is_ended():
    assert reason_of(hostile(deadline_sec=0.05), b"hang") == ("deadline", "decoding took longer than 0.05 s")
    assert hostile()(b"1").max() == 1


def test_the_alarm_ends_the_child_whatever_the_parent_does_with_it():
    isolated_decoder._child_of_thread.drop()
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        assert reason_of(hostile(deadline_sec=0.05), b"hang")[0] == "deadline"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, before)


def test_the_deadline_is_for_decoding_not_for_waiting():
    decoder = hostile(deadline_sec=0.2)
    pid = child_pid()
    decoder(b"1")
    threading.Event().wait(0.3)
    assert child_pid() == pid


def test_memory_is_bounded():
    pid = child_pid()
    assert reason_of(hostile(), b"hog")[0] == "out_of_memory"
    assert child_pid() == pid
    limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
    soft = next(line for line in limits.splitlines() if line.startswith("Max data size")).split()[3]
    assert 2e9 < int(soft) < 5e9


def test_our_own_bugs_are_not_blamed_on_the_image():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug"):
        hostile()(b"bug")
    # Only an answer that is out of step needs another child.
    assert hostile()(b"12").max() == 2


def test_a_message_may_hold_anything():
    assert reason_of(hostile(), b"surrogate") == ("corrupt", "\\udcff")


def test_what_c_libraries_print_does_not_reach_the_replies():
    assert hostile()(b"noise").max() == 5
    assert hostile()(b"123456").max() == 6


def test_options_go_with_each_request():
    assert hostile(max_pixels=7)(b"max_pixels")[0, 0, 0] == 7
    assert hostile(max_pixels=8)(b"max_pixels")[0, 0, 0] == 8


def test_large_images_pass():
    data = bytes(70_000_001)
    assert hostile()(data).max() == len(data) % 251


def test_a_child_that_has_died_idle_is_replaced():
    pid = child_pid()
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    assert hostile()(b"123").max() == 3


def test_an_image_whose_request_nobody_took_is_tried_again(monkeypatch):
    pid = child_pid()
    monkeypatch.setattr(isolated_decoder._Child, "is_running", lambda child: True)
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    assert hostile()(b"123").max() == 3


def test_ctrl_c_is_the_parents_affair():
    pid = child_pid()
    os.kill(pid, signal.SIGINT)
    assert child_pid() == pid


def test_each_thread_has_its_child_and_takes_it_along():
    barrier = threading.Barrier(3)

    def own_child(_):
        pid = child_pid()
        barrier.wait(20)
        return pid

    with ThreadPoolExecutor(3) as pool:
        pids = list(pool.map(own_child, range(3)))
    assert len(set(pids)) == 3
    assert all(has_ended(pid) for pid in pids)


def test_a_fork_does_not_share_the_child():
    pid = child_pid()
    forked = os.fork()
    if not forked:
        os._exit(0 if child_pid() != pid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert child_pid() == pid


def test_the_child_finds_its_packages_and_nothing_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    isolated_decoder._child_of_thread.drop()
    assert IsolatedDecoder()(encode(photo(9, 9), "PNG")).shape == (299, 299, 3)


def test_a_child_that_does_not_start_is_no_fault_of_the_image():
    with pytest.raises(RuntimeError, match=r"does not start: .*no_such_module ended with exit code 1"):
        IsolatedDecoder(_module="tests.no_such_module")(b"")


def test_the_child_imports_no_more_than_it_needs():
    program = "import sys, preprocess.decode_worker; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "PIL"} <= loaded
    assert not loaded & {"tensorflow", "keras", "apache_beam", "yaml", "configs", "openvino"}


@pytest.mark.parametrize("end", ["return", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_children_end_with_their_parent_also_when_busy(end):
    program = f"""
import os, signal, threading
from tests.preprocess.test_isolated_decoder import child_pid, hostile
def hang():
    print(child_pid(), flush=True)
    ready.set()
    hostile()(b"hang")
def main():
    threading.Thread(target=hang, daemon=True).start()
    ready.wait()
    print(child_pid(), flush=True)
    {end}
ready = threading.Event()
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == (0 if end == "return" else -signal.SIGKILL)
    assert done.stderr == ""
    pids = [int(line) for line in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        # The kernel's signal is on its way when the parent has gone.
        for _ in range(1000):
            if has_ended(pid):
                break
            threading.Event().wait(0.01)
        assert has_ended(pid)
