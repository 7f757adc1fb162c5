"""Runs a program: sets up its streams, prints wrong input as one line, and sets the exit code."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence

from configs.activity import shown
from configs.console import require_utf8_names, settle_streams
from configs.errors import EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_OK, InputError
from configs.printed_commands import this_command


@contextlib.contextmanager
def begins_again() -> Iterator[None]:
    """Within this context, Ctrl-C says that the same command begins again, for a program that keeps no half work."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"The same command begins again: {this_command()}") from None


def run_program(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs a program's `main(argv)` and exits the process with its code.

    `InputError` becomes one `error:` line on standard error and exit code 2; Ctrl-C becomes exit code 130, and a line
    that says what the same command will do, or the text of the `KeyboardInterrupt`. What takes long is shown while it
    lasts (`configs.activity`). Faults of printing do not change the exit code: see `configs.console`.
    """
    require_utf8_names()
    settle_streams()
    try:
        with shown():
            code = main(None) or EXIT_OK
    except InputError as error:
        message = " ".join(str(error).split())
        _print_last(f"error: {message}")
        code = EXIT_INPUT_ERROR
    except KeyboardInterrupt as interrupt:
        # A program whose next run does not go on from here says what is true of it.
        then = str(interrupt) or f"To go on, give the same command again: {this_command()}"
        _print_last(f"interrupted. {then}")
        code = EXIT_INTERRUPTED
    # Otherwise the interpreter looks for cycles in all that TensorFlow and Beam made, for seconds, before it ends.
    gc.freeze()
    sys.exit(code)


def _print_last(line: str) -> None:
    """Prints a line on standard error, below all that was printed: standard output may be the same file."""
    with contextlib.suppress(OSError, ValueError):  # Its reader is gone, or it is closed.
        sys.stdout.flush()
    print(line, file=sys.stderr)
