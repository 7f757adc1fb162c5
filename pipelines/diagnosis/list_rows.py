"""Finds the rows of lists that name a photo, without reading lists as the pipeline does: a line at a time."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
import os
import posixpath
from collections.abc import Iterable, Sequence

from pipelines.diagnosis.look import Look
from preprocess.storage.uris import resolve_uri

# What may stand before a name in a line of a list or of JSON.
_BEFORE_NAMES = b"/,;|\t\"' "
_MAX_ROWS = 200
_MAX_HEADER_BYTES = 1 << 16
_MAX_NEAREST_ROWS = 3000
# How well a row fits what was asked for.
_EXACT, _ENDS_SO, _HOLDS_IT = range(3)


@dataclasses.dataclass(frozen=True)
class ListRow:
    """A row of a list.

    Attributes:
      list_path: the list.
      line: from 1.
      uri: as it stands in the list; empty if the row has none.
      labels: the other cells of the row that are not empty.
    """

    list_path: str
    line: int
    uri: str
    labels: tuple[str, ...]

    @property
    def place(self) -> str:
        """The row for a message, as programs print it."""
        return f"{self.list_path}:{self.line}"

    @property
    def location(self) -> str:
        """The path or URI of the image."""
        return resolve_uri(self.uri, self.list_path)

    @property
    def split(self) -> str:
        """The name of the list, for example "train"."""
        return posixpath.basename(self.list_path).partition(".")[0]


def header_of(path: str) -> list[str]:
    """The cells of the first line of a file of this machine; of JSON the names of its fields. Empty if it has none."""
    try:
        with open(path, "rb") as stream:
            line = stream.readline(_MAX_HEADER_BYTES)
    except OSError:
        return []
    if path.endswith((".jsonl", ".ndjson")):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return []
        return list(found) if isinstance(found, dict) else []
    return cells_of(line.rstrip(b"\r\n"), path)


def cells_of(line: bytes, list_path: str) -> list[str]:
    """The cells of a line of a list; of JSON its texts."""
    text = line.decode("utf-8-sig", errors="replace")
    if list_path.endswith((".jsonl", ".ndjson")):
        try:
            return list(_texts_of(json.loads(text)))
        except (ValueError, RecursionError):
            return []
    delimiter = "\t" if list_path.endswith(".tsv") else max(",;|\t", key=text.count)
    try:
        row = next(csv.reader([text], delimiter=delimiter if delimiter in text else ","), [])
    except csv.Error:
        row = text.split(delimiter)
    return [cell.strip() for cell in row]


def _texts_of(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(inner)


def find_rows(text: str, lists: Sequence[str], look: Look) -> list[ListRow]:
    """The rows that fit a path, a URI or a part of it best: those that name it, else that end so, else that hold it.

    Args:
      text: what to look for.
      lists: the lists.
      look: reads them.

    Raises:
      OSError: storage failed.
    """
    name = posixpath.basename(text.rstrip("/")) or text
    for after in (_BEFORE_NAMES, None):
        ranked: dict[int, list[ListRow]] = {}
        for path in lists:
            for number, line in look.lines_with(path, _as_written(name, path), at_most=_MAX_ROWS, after=after):
                cells = cells_of(line, path)
                found = [(rank, at) for at, cell in enumerate(cells) if (rank := _rank(cell, text, path)) is not None]
                if found:
                    rank, at = min(found)
                    labels = tuple(cell for other, cell in enumerate(cells) if other != at and cell)
                    ranked.setdefault(rank, []).append(ListRow(path, number, cells[at], labels))
        if ranked:
            return ranked[min(ranked)]
    return []


def _as_written(name: str, list_path: str) -> bytes:
    if list_path.endswith((".jsonl", ".ndjson")):
        return json.dumps(name, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")
    return name.replace('"', '""').encode("utf-8", "surrogateescape")


def _rank(cell: str, text: str, list_path: str) -> int | None:
    if cell == text or _same_file(resolve_uri(cell, list_path), text):
        return _EXACT
    if cell.endswith(f"/{text.lstrip('/')}"):
        return _ENDS_SO
    return _HOLDS_IT if text in cell else None


def _same_file(one: str, other: str) -> bool:
    return os.path.basename(one) == os.path.basename(other) and os.path.realpath(one) == os.path.realpath(other)


def row_at(list_path: str, line: int, look: Look) -> ListRow | None:
    """The row at a line of a list; None if the list has fewer lines.

    Raises:
      OSError: there is no such file, or storage failed.
    """
    raw = look.line(list_path, line)
    if raw is None:
        return None
    cells = cells_of(raw, list_path)
    if not any(cells):
        return ListRow(list_path, line, "", ())
    # In a table with a header the image may stand in another column: it is the cell that looks like a path.
    named = next((at for at, cell in enumerate(cells) if "." in posixpath.basename(cell)), 0)
    return ListRow(list_path, line, cells[named], tuple(c for at, c in enumerate(cells) if at != named and c))


def nearest_names(text: str, lists: Sequence[str], look: Look) -> list[str]:
    """Up to three URIs of lists whose names are spelled much like the one that was looked for."""
    name = posixpath.basename(text.rstrip("/")) or text
    found: dict[str, str] = {}
    for length in (3, 2, 1):
        start = name[:length]
        for path in lists:
            if not start or not look.has_time:
                break
            lines = look.lines_with(path, _as_written(start, path), at_most=_MAX_NEAREST_ROWS, after=_BEFORE_NAMES)
            for _, line in lines:
                for cell in cells_of(line, path):
                    if "." in cell:
                        found.setdefault(posixpath.basename(cell), cell)
        if close := difflib.get_close_matches(name, list(found), n=3, cutoff=0.6):
            return [found[one] for one in close]
    return []
