"""Programs of the project in processes of their own, which a test may stop."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from tests.support.forked_program import fork_program

ROOT = pathlib.Path(__file__).parents[2]

# What TensorFlow and JAX set in the process of the tests, and no user has: no program gets it.
_SET_BY_PACKAGES = ("ENABLE_RUNTIME_UPTIME_TELEMETRY", "HDF5_PLUGIN_PATH", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
_SET_BY_PACKAGES += ("TF2_BEHAVIOR", "TF_CPP_MIN_LOG_LEVEL", "TPU_ML_PLATFORM", "TPU_ML_PLATFORM_VERSION")
_SET_BY_PACKAGES += ("TPU_SKIP_MDS_QUERY",)
# And what our programs set for themselves, where a test runs them in its own process.
_SET_BY_PACKAGES += ("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "OPENBLAS_NUM_THREADS")
_SET_BY_PACKAGES += ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE")
# And readline sets the size of the terminal, for the processes that pytest starts, too.
_LEFT_OUT = frozenset(_SET_BY_PACKAGES) - os.environ.keys() | {"COLUMNS", "LINES"}


def environment_of_programs(more=None):
    """The environment of this process, with more, as a program of a user would have it."""
    return {name: value for name, value in os.environ.items() if name not in _LEFT_OUT} | (more or {})


def start_program(
    arguments, environment=None, cwd=ROOT, prefix=(), *, forked=True, tensorflow=False, stdin=None, **popen
):
    """Starts Python in a process group of its own: a fork of the fork server if that does, else a new interpreter.

    Args:
      arguments: of Python.
      environment: is added to that of the test.
      cwd: the current folder.
      prefix: words before the command.
      forked: False for a new interpreter, whatever it costs.
      tensorflow: the program imports TensorFlow, so a fork should have it.
      stdin: as in `subprocess.Popen`.
      **popen: of `subprocess.Popen`, for a new interpreter.
    """
    environment = environment_of_programs(environment)
    if forked and not prefix and not popen:
        program = fork_program(arguments, environment=environment, folder=cwd, stdin=stdin, tensorflow=tensorflow)
        if program is not None:
            return program
    return subprocess.Popen(
        [*prefix, sys.executable, *arguments],
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
        **popen,
    )


def end_program(process, *, expect=0):
    """Waits for the end; gives what was written on standard output and standard error, which holds no traceback."""
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == expect, stderr
    assert "Traceback" not in stderr
    return stdout, stderr
