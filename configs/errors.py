"""The exception for input that a person must correct, helpers for its message, and the exit codes of programs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_INPUT_ERROR = 2
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """The user's input is wrong: a file, a row, a flag, a recipe or a bucket.

    The message is one line that names the place (file, line or field), the rule, the value and what to do. Programs
    print it without a traceback and exit with code 2. Every other exception that ends a program is a bug.
    """


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest in spelling to `word` (case-insensitively), or None if none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`" Did you mean 'daisy'?"` if a candidate is close to `word`, else the empty string."""
    match = nearest(word, candidates)
    return f" Did you mean {match!r}?" if match else ""


def cause_in_one_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type; for the end of an `InputError`."""
    # TensorFlow's errors have their message in a field, without the place in the graph.
    text = str(getattr(error, "message", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
