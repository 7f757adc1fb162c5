"""A program that the fork server starts is to a test what a new interpreter is."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support.forked_program import SOCKET, ForkedProgram
from tests.support.programs import ROOT, end_program, environment_of_programs, start_program

pytestmark = pytest.mark.skipif(SOCKET not in os.environ, reason="there is no fork server")

SELF = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ), "main": __name__,
    "group": os.getpgid(0) - os.getpid(), "session": os.getsid(0) - os.getpid(), "open": os.listdir("/proc/self/fd"),
    "orig_argv": sys.orig_argv, "flags": list(sys.flags), "executable": sys.executable,
    "temporary": __import__("tempfile").gettempdir(),
    "streams": [[s.encoding, s.errors, s.line_buffering, s.fileno(), s.newlines] for s in
                (sys.stdin, sys.stdout, sys.stderr)],
    "signals": [str(signal) for signal in map(__import__("signal").getsignal, (2, 13, 15))],
    "has_tensorflow": any(name.partition(".")[0] == "tensorflow" for name in sys.modules),
    "ours": [name for name in sys.modules if name.partition(".")[0] in ("configs", "preprocess", "tests")],
}))
"""


def forked(arguments, *more, **options):
    process = start_program(arguments, *more, **options)
    assert isinstance(process, ForkedProgram)
    return process


@pytest.mark.parametrize("tensorflow", [False, True])
@pytest.mark.parametrize("option", ["-c", "-m"])
@pytest.mark.parametrize(
    "environment",
    [{}, {"HUGS_OTHER": "ü", "TMPDIR": "/var/tmp", "TF_CONFIG": "{}", "PYTHONPATH": f"/nowhere{os.pathsep}{ROOT}"}],
)
def test_a_program_finds_what_a_new_interpreter_finds(tmp_path, option, environment, tensorflow):
    (tmp_path / "program.py").write_text(SELF)
    arguments = ["-c", SELF, "a", "b c"] if option == "-c" else ["-m", "program", "--flag"]
    options = {"cwd": tmp_path, "stdin": subprocess.PIPE}
    said = [
        json.loads(end_program(process)[0])
        for process in (
            forked(arguments, environment, tensorflow=tensorflow, **options),
            start_program(arguments, environment, forked=False, **options),
        )
    ]
    assert said[0] == said[1]


def test_tensorflow_is_there_as_soon_as_it_is_imported_and_has_not_started():
    program = "\n".join(
        [
            "import os, sys",
            "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules",
            "from preprocess.backbones.tensorflow_import import import_tensorflow",
            "assert len(os.listdir('/proc/self/task')) == 1",
            "tf = import_tensorflow()",
            "import tensorflow.python.eager.context as context, keras",
            "assert tf is sys.modules['tensorflow'] and tf.__spec__.name == 'tensorflow' and tf.__spec__.loader",
            "print(int(tf.reduce_sum(keras.ops.ones((3, 5)) @ tf.ones((5, 2)))))",
        ]
    )
    assert end_program(forked(["-c", program], tensorflow=True)) == ("30\n", "")


def test_standard_streams_are_those_of_the_client():
    process = forked(["-c", "import sys; print(sys.stdin.read()[::-1]); sys.stderr.write('é')"], stdin=subprocess.PIPE)
    assert process.communicate("abc") == ("cba", "é") or process.communicate() == ("cba\n", "é")
    assert (process.returncode, process.poll(), process.wait()) == (0, 0, 0)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('why')", 1),
        ("raise SystemExit(-1)", 255),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.stdout.write('no end of line'); sys.stderr.write('é')", 0),
        ("import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('lost')", None),  # 1 or 120.
        ("import sys; sys.stdout.close(); sys.stderr.close()", 0),
        ("import atexit, sys; atexit.register(lambda: print('x' * 9)); atexit.register(sys.exit, 3); sys.exit(4)", 4),
        ("import threading; threading.Thread(target=__import__('time').sleep, args=[99], daemon=True).start()", 0),
        ("import os; os._exit(9)", 9),
        ("raise ValueError('x')", 1),
        ("import atexit; atexit.register(print, 'at the end'); print('first')", 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT); __import__('time').sleep(9)", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()", 0),
    ],
)
def test_the_end_is_that_of_a_new_interpreter(program, code):
    ends = []
    for process in (forked(["-c", program]), start_program(["-c", program], forked=False)):
        stdout, stderr = process.communicate(timeout=60)
        ends.append((process.returncode, stdout, stderr.splitlines()[-1:]))
    assert ends[0] == ends[1]
    assert code in (None, ends[0][0])


def test_it_is_stopped_killed_and_gone_like_a_child():
    process = forked(["-c", "import sys; print('here', flush=True); sys.stdin.read()"], stdin=subprocess.PIPE)
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.05)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    while "\nState:\tZ" not in pathlib.Path(f"/proc/{process.pid}/status").read_text():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # Its end is not asked for yet, so the number is still its own.
    assert process.communicate() == ("", "")
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.kill()


def test_a_client_that_is_gone_leaves_no_zombie():
    process = forked(["-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    pid = process.pid
    process._connection.close()
    process.stdin.close()
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)


@pytest.mark.parametrize("leaves", ["at once", "after it has asked", "with an answer that it has not read"])
def test_a_client_that_is_killed_does_not_end_the_server(leaves):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(os.environ[SOCKET])
        if leaves != "at once":
            program = {"arguments": ["-c", "pass"], "folder": "/", "environment": environment_of_programs()}
            asked = json.dumps({**program, "streams": [], "tensorflow": False})
            connection.send(asked.encode())
        if leaves == "with an answer that it has not read":
            pid = int(connection.recv(100))
            while "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.01)
            time.sleep(0.1)  # The server says that the program has ended.
    assert end_program(forked(["-c", "print(1)"])) == ("1\n", "")


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONUTF8": "0"}, {"TF_ENABLE_ONEDNN_OPTS": "0"}, {"LC_ALL": "C"}, {"GCE_METADATA_ROOT": "127.0.0.1:1"}],
)
def test_a_variable_that_is_read_at_the_start_gets_a_new_interpreter(environment):
    process = start_program(["-c", "pass"], environment)
    assert isinstance(process, subprocess.Popen)
    end_program(process)


def test_a_program_of_a_shell_is_a_fork_with_its_streams_and_its_exit_code():
    """As tests/test_streams.py starts jobs: the parent of the program is the server."""
    code = "import os, sys; print(open(f'/proc/{os.getppid()}/cmdline').read()); sys.stderr.write('é'); sys.exit(7)"
    script = 'cd /; cd - >/dev/null; "$@" | tr "\\0" " "; exit ${PIPESTATUS[0]}'
    command = ["bash", "-c", script, "-", sys.executable, "-m", "tests.support.fork_client", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment_of_programs(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "é")
    assert "-m tests.support.fork_server" in done.stdout


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one process of pytest")
def test_processes_of_pytest_are_forks():
    assert "tests.support.fork_server" in pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_text()


def test_what_packages_set_in_the_process_of_the_tests_stays_there_and_what_tests_set_does_not(monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_LEAKED", "0")  # What one test has set is no matter of the tests after it.
    os.environ["TF_LEAKED"] = "1"
    try:
        monkeypatch.setenv("HUGS_SET", "2")
        process = forked(["-c", "import os; print(*map(os.environ.get, ('TF_LEAKED', 'HUGS_SET')))"])
    finally:
        del os.environ["TF_LEAKED"]
    assert end_program(process)[0] == "None 2\n"
    monkeypatch.delenv("HUGS_PROGRESS")
    assert "HUGS_PROGRESS" not in environment_of_programs()
    monkeypatch.undo()
    assert environment_of_programs()["HUGS_PROGRESS"] == "0" and "HUGS_SET" not in environment_of_programs()


def test_other_options_of_python_get_a_new_interpreter(tmp_path):
    (tmp_path / "program.py").write_text("print('here')")
    for arguments in (["-I", "-c", "print('here')"], [str(tmp_path / "program.py")]):
        process = start_program(arguments)
        assert isinstance(process, subprocess.Popen)
        assert end_program(process)[0] == "here\n"


def test_the_server_ends_with_its_owner(tmp_path):
    command = [sys.executable, "-m", "tests.support.fork_server", str(tmp_path / "socket")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline()
        server.stdin.close()
        assert server.wait() == 0
