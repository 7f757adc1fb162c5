"""The names of the files of a set of answers."""

from __future__ import annotations

import re

BEGUN_NAME = "begun.json"
"""Says which answers were begun at an output."""

_FILE_NAME = re.compile(r"(?P<prefix>.+)-\d{5,}-of-\d{5,}\.(csv|jsonl|parquet)", re.DOTALL)


def answers_of_file(name: str) -> str | None:
    """The name of the answers whose file is named so; None if files of answers have other names."""
    match = _FILE_NAME.fullmatch(name)
    return match["prefix"] if match else None
