"""Starts Python programs for tests without importing Beam and TensorFlow again: a server that forks.

    python -m tests.support.fork_server SOCKET

Most of the processor time of a program that a test starts would be the import of Apache Beam (1.5 s) and TensorFlow
(4 s). The server imports both once. A program is then a fork of it, which gets the arguments, the folder, the
environment, standard streams and a session of its own, and runs the module as `__main__`. All modules of the project
are imported by the program itself.

What a fork cannot be: a program with other variables of the environment that are read while Python starts or while
packages are imported. The server refuses it, and the client starts it in the usual way. The server ends when its
standard input does, which the process that started it holds.

Messages on the socket (SOCK_SEQPACKET): the client sends a program as JSON, with the descriptors of its standard
streams; the server answers with its process id or with `REFUSED`. When the program has ended, the server sends `ENDED`.
The program stays a zombie until the client asks for the exit code, as a child of the client would.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import importlib.abc
import importlib.util
import io
import json
import os
import runpy
import selectors
import socket
import sys
import tempfile
import traceback
import types
from collections.abc import Sequence

from tests.support.quick_beam import quicken_beam

ENDED = b"ended"
REFUSED = b"refused"
MOST_BYTES = 1 << 17

# What programs that process images import, and what trainers import besides.
_PACKAGES = (
    "apache_beam",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "boto3",
    "google.cloud.storage",
    "google_crc32c",
    "packaging.version",
    "pi_heif",
    "PIL.ImageOps",
    "tqdm",
    "yaml",
)
_ROOMS = ("configs", "preprocess")
# Variables that C code reads while it starts. What Python code reads while it is imported is noted below.
_READ_BY_C = ("ABSL_", "BLAS", "CUDA_", "GLOG_", "GRPC_", "KMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "NPY_")
_READ_BY_C += ("OMP_", "OPENBLAS_", "PYTHON", "TF_", "TZ", "XLA_")
# What a fork sets by itself; what is read by programs alone; and what only oauth2client reads, which Beam imports and
# nothing here calls.
_MAY_DIFFER = {"PYTHONPATH", "TMPDIR", "TF_CONFIG", "NO_GCE_CHECK"}
# What shells set for each program that they start, and readline. (Some package looks at all variables.)
_MAY_DIFFER |= {"_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL"}


# That of the program of this process, as soon as it is known.
_exit_codes: list[int] = []


def _leave_at_once() -> None:
    """The last that a program does at its exit. To take Beam and TensorFlow apart would take a tenth of a second.

    Threads have ended, and what was registered with `atexit` is done. If the streams cannot be flushed, the interpreter
    says so and has another exit code.
    """
    if _exit_codes:
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except (OSError, ValueError):
                return
        os._exit(_exit_codes[0] & 0xFF)


@contextlib.contextmanager
def _noting_reads(names: set[str]):
    """Within this context, the names of variables that Python code reads are put into `names`."""
    kind = type(os.environ)
    read = kind.__getitem__

    def noting(self, key):
        names.add(os.fsdecode(key))
        return read(self, key)

    kind.__getitem__ = noting
    try:
        yield
    finally:
        kind.__getitem__ = read


class _Kept(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """TensorFlow, imported but out of sight until a program imports it: programs ask whether it is imported."""

    def __init__(self, modules: dict[str, types.ModuleType]):
        self._modules = modules

    def find_spec(self, name, path=None, target=None):
        if name not in self._modules:
            return None
        sys.meta_path.remove(self)
        self._specs = {key: module.__spec__ for key, module in self._modules.items() if hasattr(module, "__spec__")}
        for key, module in self._modules.items():
            sys.modules.setdefault(key, module)
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec):
        return self._modules[spec.name]

    def exec_module(self, module):
        module.__spec__ = self._specs[module.__name__]
        module.__loader__ = module.__spec__.loader


def _import_beam() -> None:
    for name in _PACKAGES:
        with contextlib.suppress(ImportError):  # Not all is installed everywhere.
            importlib.import_module(name)
    quicken_beam()


def _import_tensorflow() -> None:
    """Imports it without starting it: then it has no threads, which would be missing in a fork."""
    before = set(sys.modules)
    from preprocess.backbones.tensorflow_import import import_tensorflow

    import_tensorflow(start=False)
    import keras  # noqa: F401

    new = {name: name.partition(".")[0] for name in sys.modules.keys() - before}
    for name in [name for name, top in new.items() if top in _ROOMS]:
        del sys.modules[name]
    kept = [name for name, top in new.items() if top in ("tensorflow", "keras")]
    sys.meta_path.insert(0, _Kept({name: sys.modules.pop(name) for name in kept}))


@dataclasses.dataclass(frozen=True)
class Program:
    """What `python ARGUMENTS` is started with.

    Attributes:
      arguments: "-m" and a module, or "-c" and code; then what is in `sys.argv`.
      folder: the current one.
      environment: all of it.
      streams: which of the descriptors 0, 1 and 2 are open.
      tensorflow: whether it imports TensorFlow, if it gets that far.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]
    tensorflow: bool

    def run(self) -> None:
        """Runs the program in this process. What it raises is for the interpreter."""
        os.chdir(self.folder)
        names = [name for name in self.environment.get("PYTHONPATH", "").split(os.pathsep) if name]
        option, what, *words = self.arguments
        sys.path[:] = ["" if option == "-c" else os.getcwd(), *names, *_LIBRARIES]
        sys.path_importer_cache.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.orig_argv[:] = [sys.executable, *self.arguments]
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None  # It is read from TMPDIR anew.
        sys.stdin, sys.stdout, sys.stderr = map(_stream, range(3), (sys.stdin, sys.stdout, sys.stderr))
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        with contextlib.suppress(KeyError):
            sys.modules["numpy"].random.seed()  # Python seeds its own generators anew, and not that of NumPy.
        sys.argv[:] = [option, *words]
        try:
            if option == "-m":
                runpy.run_module(what, run_name="__main__", alter_sys=True)
            else:
                main = sys.modules["__main__"] = types.ModuleType("__main__")
                exec(compile(what, "<string>", "exec"), main.__dict__)
        except SystemExit as end:
            if isinstance(end.code, int | None):
                _exit_codes.append(end.code or 0)
            raise
        _exit_codes.append(0)


def _stream(descriptor: int, like: io.TextIOWrapper) -> io.TextIOWrapper | None:
    """The text stream that Python makes of a descriptor when it starts; None if that is closed."""
    mode, buffering = "rb" if descriptor == 0 else "wb", 0 if like.write_through else -1
    try:
        stream = open(descriptor, mode, buffering=buffering, closefd=False)  # noqa: SIM115
    except OSError:
        return None
    return io.TextIOWrapper(
        stream,
        encoding=like.encoding,
        errors=like.errors,
        newline="\n",
        line_buffering=like.line_buffering or stream.isatty(),
        write_through=like.write_through,
    )


class _Child:
    """A program that runs, and the connection to the one who has started it."""

    def __init__(self, process: int, connection: socket.socket, selector: selectors.BaseSelector):
        self._process, self._connection, self._selector = process, connection, selector
        self._handle = os.pidfd_open(process)
        self._has_client, self._has_ended = True, False
        selector.register(self._handle, selectors.EVENT_READ, self._ended)
        selector.register(connection, selectors.EVENT_READ, self._asked)

    def _ended(self, _handle: int) -> None:
        self._selector.unregister(self._handle)
        os.close(self._handle)
        self._has_ended = True
        if self._has_client:
            with contextlib.suppress(OSError):
                self._connection.send(ENDED)
        else:
            os.waitpid(self._process, 0)

    def _asked(self, _connection: socket.socket) -> None:
        """The client asks for the exit code, or is gone."""
        with contextlib.suppress(OSError):  # It was killed.
            self._connection.recv(MOST_BYTES)
        if self._has_ended:
            code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
            with contextlib.suppress(OSError):
                self._connection.send(str(code).encode())
        self._selector.unregister(self._connection)
        self._connection.close()
        self._has_client = False


class _Server:
    """Takes programs from the socket, and forks for each of them."""

    def __init__(self, path: str):
        self._selector = selectors.DefaultSelector()
        self._read: set[str] = set()
        self._done: list[object] = []
        self._environment = dict(os.environ)
        owner = os.dup(0)  # Programs have descriptor 0 for themselves.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(path)
        self._socket.listen(64)
        self._selector.register(owner, selectors.EVENT_READ, self._end)
        self._selector.register(self._socket, selectors.EVENT_READ, self._connect)
        self._ended = False
        print("listening", flush=True)

    def serve(self) -> Program | None:
        """Serves until its owner has ended. In each fork, gives the program to run; None in the server."""
        while not self._ended:
            for key, _ in self._selector.select():
                if program := key.data(key.fileobj):
                    return program
        return None

    def _end(self, _owner: int) -> None:
        self._ended = True

    def _connect(self, _socket: socket.socket) -> None:
        connection, _ = self._socket.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._start)

    def _start(self, connection: socket.socket) -> Program | None:
        self._selector.unregister(connection)
        data, descriptors = b"", []
        with contextlib.suppress(OSError):  # A client may be killed at any moment, and all others need the server.
            data, descriptors, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
        if not data:
            connection.close()
            return None
        program = Program(**json.loads(data))
        try:
            refused = self._refuses(program)
        except Exception:
            connection.send(traceback.format_exc().encode())
            raise
        process = None if refused else os.fork()
        if process == 0:
            self._leave(connection, program, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if process == 0:
            return program
        with contextlib.suppress(OSError):
            connection.send(REFUSED if process is None else str(process).encode())
        if process is None:
            connection.close()
        else:
            _Child(process, connection, self._selector)
        return None

    def _refuses(self, program: Program) -> bool:
        """Whether the program would not be the same as a fork; imports what it needs."""
        for imports, is_needed in ((_import_beam, True), (_import_tensorflow, program.tensorflow)):
            if is_needed and imports not in self._done:
                self._done.append(imports)
                with _noting_reads(self._read):
                    imports()
                gc.collect()
                gc.freeze()  # So that no program looks through all that, at its end least of all.
        mine, its = self._environment, program.environment
        different = {name for name in mine.keys() | its.keys() if mine.get(name) != its.get(name)} - _MAY_DIFFER
        # Modules of the project are imported by the program itself, which reads its own then.
        different = {name for name in different if not name.startswith("HUGS_")}
        return bool(different & self._read) or any(name.startswith(_READ_BY_C) for name in different)

    def _leave(self, connection: socket.socket, program: Program, descriptors: Sequence[int]) -> None:
        """In the fork: closes what is the server's, and puts the program's streams in their places."""
        os.setsid()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fileobj)
        connection.close()
        self._selector.close()
        for descriptor in range(3):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        for place, descriptor in zip(program.streams, descriptors, strict=True):
            os.dup2(descriptor, place)


if __name__ == "__main__":
    atexit.register(_leave_at_once)  # Before all that Beam and TensorFlow register, so after it at the end.
    _OWN = [name for name in os.environ.get("PYTHONPATH", "").split(os.pathsep) if name]
    _LIBRARIES = sys.path[1 + len(_OWN) :]
    if _program := _Server(sys.argv[1]).serve():
        _program.run()
