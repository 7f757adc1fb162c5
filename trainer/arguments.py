"""Splits lists of paths on the command line: a flag may be repeated, and its paths separated by commas."""

from __future__ import annotations

from collections.abc import Sequence


def split_paths(values: Sequence[str] | None) -> tuple[str, ...]:
    """The paths of a repeated, comma-separated flag, in order, without empty ones."""
    return tuple(path.strip() for value in values or () for path in value.split(",") if path.strip())
