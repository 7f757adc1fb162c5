"""Names for record sets, for tables and pages: as much of their folders as tells them apart."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.data.record_sets import RecordSet


def set_names(sets: Iterable[RecordSet]) -> tuple[str, ...]:
    """The name of each set: the end of its prefix, with as many folders before it as make all names different."""
    parts = [found.prefix.split("/") for found in sets]
    for kept in range(1, max(map(len, parts), default=0)):
        names = tuple("/".join(words[-kept:]) for words in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(map("/".join, parts))
