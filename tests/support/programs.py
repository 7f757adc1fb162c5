"""Programs of the project in processes of their own, which a test may stop."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from tests.support.forked_program import fork_program

ROOT = pathlib.Path(__file__).parents[2]

# The environment of the tests: what was there before a test imported anything, and what tests have set on purpose. What
# packages and our programs set in the process of the tests, no user has, so no program gets it. readline sets the size
# of the terminal, for the processes that pytest starts, too.
_AT_START = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
# The values that tests have set; None for what they have removed.
_SET_BY_TESTS: dict[str, str | None] = {}
_NOT_SET = object()


def give_variable(name, value):
    """Lets programs have a variable, or None lets them not have it. Gives what `give_variable_back` takes."""
    before = _SET_BY_TESTS.get(name, _NOT_SET)
    _SET_BY_TESTS[name] = value
    return name, before


def give_variable_back(name, before):
    """Programs have of a variable what they had before `give_variable`, whatever packages have made of it meanwhile."""
    if before is _NOT_SET:
        _SET_BY_TESTS.pop(name, None)
    else:
        _SET_BY_TESTS[name] = before


def set_variable(name, value):
    """Sets a variable of this process and of the programs that it starts from now on; removes it if `value` is None."""
    give_variable(name, value)
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def environment_of_programs(more=None):
    """The environment of the tests, with more, as a program of a user would have it."""
    environment = {**_AT_START, **_SET_BY_TESTS, **(more or {})}
    return {name: value for name, value in environment.items() if value is not None}


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
