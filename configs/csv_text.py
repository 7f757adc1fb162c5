"""Tables as CSV whose lines end with only a line feed, as all programs of the project write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# Between several labels of one photo in a cell.
LABEL_SEPARATOR = " | "


class _Lines:
    """Ends lines with only a line feed. If `csv` itself did this, it would not quote carriage returns (Python 3.11)."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def csv_writer(stream: TextIO) -> Any:
    """A writer of CSV to a stream that was opened with newline=""; its lines end with only a line feed."""
    return csv.writer(_Lines(stream))


def write_csv(stream: TextIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a whole table as CSV to a stream that was opened with newline=""."""
    writer = csv_writer(stream)
    writer.writerow(header)
    writer.writerows(rows)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A whole table as CSV."""
    stream = io.StringIO(newline="")
    write_csv(stream, header, rows)
    return stream.getvalue()
