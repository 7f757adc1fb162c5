"""The names of the files of answers: the answers themselves, and what lies in the folder beside them."""

from __future__ import annotations

import re

ANSWERS_NAME = "answers.json"
"""The file that completes the answers; it is written last."""
BEGUN_NAME = "begun.json"
"""The file that says which answers were begun."""
RECORDS_NAME = "photos"
"""The record set of the photos that are answered for."""

_NAMED = re.compile(r"(.+)-\d{5,}-of-\d{5,}\.(?:csv|jsonl|parquet)", re.DOTALL)


def answers_of_file(path: str) -> str | None:
    """The prefix of the answers that a file of this name belongs to; None if it is not named like one."""
    named = _NAMED.fullmatch(path)
    return named.group(1) if named else None
