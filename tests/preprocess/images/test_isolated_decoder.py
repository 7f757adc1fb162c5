import errno
import functools
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

from preprocess.images import isolated_decoder
from preprocess.images.decode import ImageError, decode_image, pi_heif
from preprocess.images.decode_worker import IMAGE_ERROR, PIXELS, REPLY
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.machine.machine_faults import MachineFault, is_machine_fault
from tests.support.hostile_worker import ATTEMPTS
from tests.support.image_corpus import corpus, encode, photo
from tests.support.mutated_corpus import mutated

# pytest sets aside the filter that `preprocess.images.decode` installs.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

ROOT = pathlib.Path(__file__).parents[3]


def hostile(**options):
    return IsolatedDecoder(_module="tests.support.hostile_worker", **options)


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


def test_a_decoder_that_is_stopped_is_ended_and_replaced():
    pid = child_pid()
    os.kill(pid, signal.SIGSTOP)
    assert hostile(deadline_sec=0.2)(b"1").max() == 1
    assert has_ended(pid)


def test_a_decoder_that_does_not_get_going_is_ended(monkeypatch):
    isolated_decoder._child_of_thread.drop()
    monkeypatch.setattr(isolated_decoder, "_START_DEADLINE_SEC", 0.05)
    with pytest.raises(MachineFault, match="does not start: .* ended with signal SIGKILL"):
        IsolatedDecoder(_module="tests.support.stopped_worker")(b"")


@pytest.mark.parametrize(
    ("word", "message"),
    [(b"stop", "was stopped for longer than 0.2 s"), (b"killed", "somebody ended the decoder with signal SIGKILL")],
)
def test_what_others_do_to_a_decoder_is_no_fault_of_the_image(word, message):
    with pytest.raises(MachineFault, match=message):
        hostile(deadline_sec=0.2)(word)
    assert hostile()(b"1").max() == 1


def test_a_job_that_is_paused_loses_no_image_to_the_deadline():
    program = """
from tests.preprocess.images.test_isolated_decoder import hostile
decoder = hostile(deadline_sec=3)
print("ready", decoder(b"1").max(), flush=True)
print(*[decoder(b"slow").max() for _ in range(8)])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready 1\n"
    threading.Event().wait(0.2)  # It is in the middle of an image.
    os.killpg(process.pid, signal.SIGSTOP)
    threading.Event().wait(5)
    os.killpg(process.pid, signal.SIGCONT)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout.split()) == (0, ["4"] * 8)


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


@functools.cache
def large_photo(mode):
    return photo(2000, 1500, mode)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "JPEG2000"), ("CMYK", "TIFF"), ("RGBA", "WEBP"), ("RGBA", "TGA"), ("RGBA", "DDS")]
)
def test_the_largest_images_of_each_format_need_no_more_than_the_limit(mode, format):
    """Without the 512 MiB on top, which hide at this size what they would not at 120 megapixels."""
    program = """
import resource, sys
import preprocess.images.decode_worker as worker
pixels = 2000 * 1500
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
data = sys.stdin.buffer.read()
worker._limit_memory(int(status["VmData"].split()[0]) * 1024 + 2 * len(data) + worker._BYTES_PER_PIXEL * pixels)
print(worker.decode_squares(data, [worker.Square(299)])[0].shape)
"""
    data = encode(large_photo(mode), format)
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | isolated_decoder._MALLOC, input=data, capture_output=True, check=False
    )
    assert done.stdout == b"(299, 299, 3)\n", done.stderr


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
    with pytest.raises(MachineFault, match=r"does not start: .*no_such_module ended with exit code 1"):
        IsolatedDecoder(_module="tests.no_such_module")(b"")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_child_that_cannot_be_started_is_no_fault_of_the_image(monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    isolated_decoder._child_of_thread.drop()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        with pytest.raises(MachineFault, match=f"^the decoder process does not start: {os.strerror(number)}$"):
            hostile()(b"1")
    assert hostile()(b"1").max() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such filter")
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_decoder_that_was_taken_over_can_do_nothing(attempt):
    if attempt == "start a thread" and pi_heif is not None:
        pytest.skip("the decoder of HEIC needs threads; they can do no more than the process")
    reason, message = reason_of(hostile(), f"attempt:{attempt}:{os.getpid()}".encode())
    assert reason == "corrupt"
    assert message.startswith("refused: ") and ("Operation not permitted" in message or "start new thread" in message)


@pytest.mark.parametrize(
    "reply",
    [
        REPLY.pack(0, IMAGE_ERROR, 1 << 62),
        REPLY.pack(0, IMAGE_ERROR, 8 << 30),
        REPLY.pack(0, PIXELS, 5) + b"12345",
        REPLY.pack(0, 99, 0),
        REPLY.pack(0, IMAGE_ERROR, 3) + b"\xff\xff\xff",
        REPLY.pack(0, IMAGE_ERROR, 8) + b"no\0words",
    ],
)
@pytest.mark.parametrize("known_tag", [True, False])
def test_an_answer_that_is_none_costs_its_image_and_no_other(monkeypatch, reply, known_tag):
    # One of known tags is what a decoder sends that was taken over in the middle of its image.
    if known_tag:
        monkeypatch.setattr(isolated_decoder, "_new_tag", lambda: 0)
    before = child_pid()
    reason, message = reason_of(hostile(deadline_sec=20), b"forge:hang:" + reply)
    assert (reason, message) == ("decoder_crashed", "the decoder gave an answer that is none")
    assert child_pid() != before


def test_an_answer_that_was_prepared_is_not_taken_for_the_next_image():
    pixels = REPLY.pack(0, PIXELS, 299 * 299 * 3) + bytes(299 * 299 * 3)
    decoder = hostile(deadline_sec=20)
    with pytest.raises(ImageError, match="decoder_crashed"):
        decoder(b"forge:go on:" + pixels + pixels)
    assert decoder(b"12345").max() == 5


def test_what_a_decoder_says_of_itself_is_never_the_machine_s_fault():
    with pytest.raises(RuntimeError) as caught:
        hostile()(b"no threads")
    assert not is_machine_fault(caught.value)


def test_a_message_of_any_length_is_cut():
    reason, message = reason_of(hostile(), b"long")
    assert reason == "corrupt" and 1000 < len(message) < 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_gets_nothing_of_its_parents(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_SECRET_KEY", "s3cret")
    monkeypatch.chdir(tmp_path)
    isolated_decoder._child_of_thread.drop()
    with open(tmp_path / "file", "wb") as stream:
        os.set_inheritable(stream.fileno(), True)
        pid = child_pid()
        process = pathlib.Path(f"/proc/{pid}")
        names = {line.partition(b"=")[0].decode() for line in (process / "environ").read_bytes().split(b"\0") if line}
        assert names <= {
            "PYTHONPATH",
            "OPENBLAS_NUM_THREADS",
            "OMP_NUM_THREADS",
            "MALLOC_MMAP_THRESHOLD_",
            "MALLOC_TRIM_THRESHOLD_",
            "LD_LIBRARY_PATH",
            "PYTHONHOME",
        }
        assert os.readlink(process / "cwd") == "/"
        targets = {os.readlink(link).partition(":")[0] for link in (process / "fd").iterdir()}
        assert targets == {"pipe", "/dev/null"}
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")


def test_without_a_filter_images_are_decoded_all_the_same_and_that_is_said_once(caplog):
    caplog.set_level("WARNING", logger=isolated_decoder.__name__)
    isolated_decoder._say_unconfined.cache_clear()
    decoder = IsolatedDecoder(_module="tests.support.unconfined_worker")
    for _ in range(2):
        isolated_decoder._child_of_thread.drop()
        assert decoder(b"12345").max() == 5
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "Decoders run without a filter of their system calls"
    ]
    for attempt in ("open a file", "write a file", "open the parent's memory", "open a socket"):
        assert "Too many open files" in reason_of(decoder, f"attempt:{attempt}:{os.getpid()}".encode())[1]
    isolated_decoder._child_of_thread.drop()


def test_all_that_decoding_imports_is_imported_before_the_first_image(tmp_path):
    """A child may open nothing once it is ready; what it wanted to would be missing, in some kind of image."""
    samples = [sample.data for sample in corpus() if len(sample.data) < 500_000] + [data for _, data in mutated()]
    (tmp_path / "samples").write_bytes(pickle.dumps(samples))
    program = """
import pickle, sys
samples = pickle.load(open(sys.argv[1], "rb"))
import preprocess.images.decode_worker
opened = set()
sys.addaudithook(lambda event, values: opened.add(str(values[0])) if event == "open" else None)
for data in samples:
    try:
        preprocess.images.decode_worker.decode_squares(
            data, [preprocess.images.decode_worker.Square(299)], max_pixels=1 << 22
        )
    except preprocess.images.decode_worker.ImageError as error:
        assert not isinstance(error.__cause__, ImportError), error
print(len(samples), sorted(opened))
"""
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "samples")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(samples)} []\n"


def test_what_a_decoder_wants_and_may_not_have_is_not_blamed_on_the_image():
    with pytest.raises(RuntimeError, match="ModuleNotFoundError: no module"):
        hostile()(b"import")


def test_the_child_imports_no_more_than_it_needs():
    program = "import sys, preprocess.images.decode_worker; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "PIL"} <= loaded
    assert not loaded & {"tensorflow", "keras", "apache_beam", "yaml", "configs", "openvino"}


@pytest.mark.parametrize("end", ["return", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_children_end_with_their_parent_also_when_busy(end):
    program = f"""
import os, signal, threading
from tests.preprocess.images.test_isolated_decoder import child_pid, hostile
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
