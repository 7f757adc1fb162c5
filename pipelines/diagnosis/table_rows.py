"""What tables that programs of the project wrote say of a photo: those of `next`, `drift`, `twins`, `map`, `audit`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from configs.written_tables import NAMING_COLUMNS
from pipelines.diagnosis.list_rows import ListRow, cells_of, find_rows, header_of
from pipelines.diagnosis.look import FINE, Answer, Look
from pipelines.diagnosis.places import Places

_MAX_ROWS = 10


def tell_tables(answer: Answer, rows: Sequence[ListRow], places: Places, look: Look) -> None:
    """Adds what tables say of a photo of some lists, for each table a fact.

    Raises:
      OSError: storage failed.
    """
    locations = {os.path.realpath(row.location) for row in rows if row.uri}
    for uri in dict.fromkeys(row.uri for row in rows if row.uri):
        for found in find_rows(uri, list(places.tables), look)[:_MAX_ROWS]:
            if found.uri == uri or os.path.realpath(found.location) in locations:
                _add(answer, found, places, look)


def explain_by_tables(text: str, places: Places, look: Look) -> Answer | None:
    """What tables say of a photo that no list and no set names; None if they do not name it either.

    Raises:
      OSError: storage failed.
    """
    found = find_rows(text, list(places.tables), look)[:_MAX_ROWS]
    if not found:
        return None
    paths = ", ".join(dict.fromkeys(row.list_path for row in found))
    answer = Answer(f"{text}: is in no list and no set that was found, only in tables: {paths}", weight=FINE)
    for row in found:
        _add(answer, row, places, look)
    return answer


def explain_table(path: str, line: int | None, places: Places, look: Look) -> Answer:
    """What a table is, and what one of its lines says.

    Raises:
      OSError: storage failed.
    """
    answer = Answer(f"{path}: is no list of photos, but a table of {places.tables[path]}", weight=FINE)
    raw = look.line(path, line) if line is not None else None
    if raw is not None and line is not None:
        cells = cells_of(raw, path)
        _add(answer, ListRow(path, line, cells[0] if cells else "", ()), places, look)
    return answer


def _add(answer: Answer, row: ListRow, places: Places, look: Look) -> None:
    cells = cells_of(look.line(row.list_path, row.line) or b"", row.list_path)
    named = dict(zip(header_of(row.list_path), cells, strict=False))
    said = ", ".join(f"{name} {cell!r}" for name, cell in named.items() if cell and name not in NAMING_COLUMNS)
    fact = ("table", f"{row.place}, of {places.tables[row.list_path]}: {said or 'it is named there'}", row.list_path)
    if fact not in answer.facts:
        answer.add(*fact)
