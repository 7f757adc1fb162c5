"""Workers of another environment, reached through Beam's portable runner: what Flink, Spark and Dataflow do.

Theirs has the project from its source distribution, not from this checkout.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import site
import subprocess
import sys
import time
import venv

import pytest

from configs.source_files import source_files
from tests.support.photos import write_photos
from tests.support.programs import start_program

ROOT = pathlib.Path(__file__).parents[2]
_ROWS = 60
# A job that would hang is ended, and fails its test.
_LIMIT_SEC = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data"), _ROWS, side=20, broken={40})


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    for path in source_files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory, sdist):
    """A virtual environment with the project's source distribution and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*command, "--no-build-isolation", sdist], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = "import configs, preprocess; print(configs.__path__[0], preprocess.__path__[0])"
    found = subprocess.run([python, "-c", code], check=True, cwd=folder, capture_output=True, text=True, env=_clean())
    assert found.stdout.split() == [str(packages / "configs"), str(packages / "preprocess")]
    return folder


def _clean():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@contextlib.contextmanager
def worker_pool(environment, *, programs=None):
    """The process of a pool and its port; `programs` is a folder in which workers look for `python` first."""
    program = environment / "loopback_worker_pool.py"
    shutil.copy(ROOT / "tests" / "support" / program.name, program)
    path = [str(programs or ""), f"{environment}/bin", os.environ["PATH"]]
    with open(environment / "log.txt", "w") as log:
        pool = subprocess.Popen(
            [environment / "bin/python", program],
            cwd=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_clean() | {"PATH": os.pathsep.join(filter(None, path))},
        )
        try:
            yield pool, int(pool.stdout.readline())
        finally:
            pool.communicate()


def start(data, out, *, batch_sec=0.0, port=None, **environment):
    command = ["-m", "tests.support.portable_job", str(batch_sec), "--weights", "random"]
    command += ["--input_path", str(data / "train.csv"), "--input_dict", str(data / "dict.txt")]
    command += ["--output_path", str(out / "train"), "--rows_per_shard", "10"]
    if port is not None:
        command += ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL"]
        command += [f"--environment_config=localhost:{port}"]
    return start_program(command, environment)


def end_of(process, *, expect=0):
    try:
        stdout, stderr = process.communicate(timeout=_LIMIT_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == expect, stderr
    return stdout, stderr


def shards(out):
    return {path.name: path.read_bytes() for path in out.glob("train-*")}


def report_of(out):
    report = json.loads((out / "_train/report.json").read_text())
    return {name: report[name] for name in ("status", "rows_read", "embedded", "failed", "skipped", "backbone")}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    end_of(start(data, out))
    return out


def test_workers_of_another_environment_write_the_same_set(data, undisturbed, environment, tmp_path):
    with worker_pool(environment) as (_, port):
        stdout, _ = end_of(start(data, tmp_path, port=port))
    assert "60 rows read" in stdout
    assert shards(tmp_path) == shards(undisturbed)
    assert report_of(tmp_path) == report_of(undisturbed)
    assert report_of(tmp_path)["rows_read"] == _ROWS


def workers_of(pool):
    """The processes that a pool started, with their children."""
    children = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    return {worker: children.get(worker, []) for worker in children.get(pool.pid, [])}


def start_and_wait_for_a_block(data, out, port):
    process = start(data, out, port=port, batch_sec=0.3)
    deadline = time.monotonic() + _LIMIT_SEC
    while not list(out.glob("_train/parts-*/*.result.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_worker_that_is_killed_fails_the_job_and_the_same_command_goes_on(data, undisturbed, environment, tmp_path):
    with worker_pool(environment) as (pool, port):
        process = start_and_wait_for_a_block(data, tmp_path, port)
        # The worker that embeds is the one with processes that decode.
        (embedding,) = (worker for worker, decoders in workers_of(pool).items() if decoders)
        os.kill(embedding, signal.SIGKILL)
        _, stderr = end_of(process, expect=2)
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "What was embedded is kept. To go on, give the same command again: " in last
    assert not (tmp_path / "_train/manifest.json").exists()
    assert not shards(tmp_path)
    with worker_pool(environment) as (_, port):
        end_of(start(data, tmp_path, port=port))
    assert shards(tmp_path) == shards(undisturbed)
    assert json.loads((tmp_path / "_train/report.json").read_text())["embedded_by"]["earlier_run"] >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_is_told_at_once_how_to_go_on_and_workers_end(data, environment, tmp_path, number):
    with worker_pool(environment) as (pool, port):
        process = start_and_wait_for_a_block(data, tmp_path, port)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
        assert process.returncode == 128 + number
        assert "Traceback" not in stderr
        assert "\ntrain: stopped. What was embedded is kept. To go on, give the same command again: " in stderr
        assert stdout == ""
        assert not (tmp_path / "_train/manifest.json").exists()
        # They are of the other environment, and nobody else tells them.
        for worker in workers_of(pool):
            wait_for_the_end_of(worker)


def wait_for_the_end_of(process_id):
    deadline = time.monotonic() + _LIMIT_SEC
    with contextlib.suppress(OSError):
        while pathlib.Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_workers_that_never_come_up_fail_the_job(data, environment, tmp_path):
    program = tmp_path / "programs/python"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with worker_pool(environment, programs=program.parent) as (_, port):
        _, stderr = end_of(start(data, tmp_path, port=port, START_LIMIT_SEC="0.5"), expect=2)
    assert "No worker has connected within" in stderr.splitlines()[-1]


def test_workers_with_other_code_are_refused(data, environment, tmp_path):
    (module,) = environment.glob("lib/python*/site-packages/preprocess/images/decode.py")
    code = module.read_text()
    module.write_text(f"{code}# Another version.\n")
    try:
        with worker_pool(environment) as (_, port):
            _, stderr = end_of(start(data, tmp_path, port=port), expect=2)
    finally:
        module.write_text(code)
    assert "has other code of hugs than the program that started the job" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not list(tmp_path.glob("_train/parts-*/*.result.json"))
