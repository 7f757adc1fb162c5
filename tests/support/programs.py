"""Programs of the project in processes of their own, which a test may stop."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def start_program(arguments, environment=None, cwd=ROOT, prefix=(), **popen):
    """Starts Python in a process group of its own.

    Args:
      arguments: of Python.
      environment: is added to that of the test.
      cwd: the current folder.
      prefix: words before the command.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | (environment or {}),
        **popen,
    )


def end_program(process, *, expect=0):
    """Waits for the end; gives what was written on standard output and standard error, which holds no traceback."""
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == expect, stderr
    assert "Traceback" not in stderr
    return stdout, stderr
