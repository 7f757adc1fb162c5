"""What all tests share: their order, and a cache of models that does not depend on what a machine has kept."""

import contextlib
import functools
import os
import shlex
import subprocess
import sys
import tempfile

import hypothesis
import pytest

from tests.support.forked_program import SOCKET
from tests.support.made_once import SHARED_FOLDER
from tests.support.programs import ROOT, environment_of_programs, give_variable, give_variable_back, set_variable
from tests.support.quick_beam import quicken_beam

# The time that an example may take says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Three tests run at a time, on two cores: more threads within TensorFlow only get into each other's way.
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    set_variable(_name, os.environ.get(_name, "1"))

# Tests compare what programs print. Lines about what takes long would depend on how busy the machine is.
set_variable("HUGS_PROGRESS", "0")

# Bytecode is kept, whatever the environment says: without it each process of pytest compiles all tests anew for many
# seconds, and each program the modules of the project.
set_variable("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def _noting(change):
    """A method of MonkeyPatch that changes a dictionary; of the environment, it lets programs have the change."""

    @functools.wraps(change)
    def method(patch, dictionary, name, *more, **options):
        change(patch, dictionary, name, *more, **options)
        if dictionary is os.environ:
            patch.__dict__.setdefault("given", []).append(give_variable(name, os.environ.get(name)))

    return method


def _giving_back(undo):
    @functools.wraps(undo)
    def method(patch):
        undo(patch)
        while patch.__dict__.get("given"):
            give_variable_back(*patch.given.pop())

    return method


pytest.MonkeyPatch.setitem = _noting(pytest.MonkeyPatch.setitem)  # setenv and delenv call them.
pytest.MonkeyPatch.delitem = _noting(pytest.MonkeyPatch.delitem)
pytest.MonkeyPatch.undo = _giving_back(pytest.MonkeyPatch.undo)

# The files that take longest come first, so that at the end no process waits for the last file of the other.
_FIRST = (
    "test_portable",
    "test_stopped_jobs",
    "test_bucket_workflow",
    "test_set_states",
    "test_engines",
    "test_predict",
    "test_isolated_decoder",
    "test_formats",
    "test_faulty_bucket",
    "test_thirty_faults",
    "test_decode_graph",
    "test_whole_sets",
    "test_jax_engine",
    "test_parity",
    "test_dataflow_staged",
    "test_dask",
    "test_output_locks",
    "test_resume",
    "test_bucket_lock",
    "test_two_workers",
    "test_export_frozen",
    "test_streams",
    "test_streaming",
    "test_benchmarks",
    "test_with_gcloud",
)


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_configure(config):
    """Makes what all processes of pytest share: a folder, and the fork server, which imports nothing before it must."""
    if hasattr(config, "workerinput"):
        return
    stack = contextlib.ExitStack()
    config.add_cleanup(stack.close)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tests-"))
    os.environ[SHARED_FOLDER] = folder
    stack.callback(os.environ.pop, SHARED_FOLDER)
    if not hasattr(os, "pidfd_open"):
        return
    path = os.path.join(folder, "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fork_server", path],
        cwd=ROOT,
        env=environment_of_programs(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(server.communicate)  # The server ends with its standard input.
    if server.stdout.readline():
        set_variable(SOCKET, path)
        stack.callback(set_variable, SOCKET, None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    quicken_beam()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    """Lets the processes of pytest be forks as well: each would import Beam and TensorFlow for six seconds."""
    if SOCKET in os.environ and os.path.samefile(os.getcwd(), ROOT):
        for spec in specs:
            spec.python = f"{shlex.quote(sys.executable)} -m tests.support.fork_client --tensorflow"


@pytest.fixture(scope="module", autouse=True)
def engines_are_those_of_their_networks():
    """Fails where a stand-in for a network is left in the process, for the tests that come after."""
    yield
    if select := sys.modules.get("preprocess.engines.select"):
        from preprocess.backbones.architectures import ARCHITECTURES

        for (spec, _), engine in select._loaded.items():
            known = ARCHITECTURES.get(spec.architecture)
            assert known is None or engine.identity.embedding_size == known.embedding_size, spec


@pytest.fixture(scope="session", autouse=True)
def model_cache_of_the_session(tmp_path_factory):
    """One cache for all processes of pytest, so that none converts a network again."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "model_cache"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("HUGS_CACHE_DIR")
    set_variable("HUGS_CACHE_DIR", str(folder))
    yield
    set_variable("HUGS_CACHE_DIR", before)
