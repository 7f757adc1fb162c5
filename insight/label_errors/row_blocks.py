"""Rows of arrays some thousand at a time, so that what is computed of a million rows on the way stays small."""

from __future__ import annotations

from collections.abc import Iterator

_ROWS = 16_384


def row_blocks(count: int) -> Iterator[slice]:
    """Slices of up to 16,384 rows that together are `count` rows, in order."""
    for start in range(0, count, _ROWS):
        yield slice(start, min(start + _ROWS, count))
