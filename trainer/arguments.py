"""Lists of paths on the command line may be repeated or comma-separated."""

from __future__ import annotations

from collections.abc import Sequence


def split_paths(values: Sequence[str] | None) -> tuple[str, ...]:
    """The paths of a repeated, comma-separated flag, in order, without empty ones."""
    return tuple(path.strip() for value in values or () for path in value.split(",") if path.strip())
