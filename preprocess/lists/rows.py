"""Reads lists of labelled images: CSV rows `image_uri,label[,label...]`.

Each row of a list, also a blank line, gives exactly one `Row`. It is either still to be embedded, or its outcome is
already a failure or a skip. So the number of rows is what `wc -l` counts, if no field contains a line break.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from configs.choices import UnknownLabels
from configs.errors import InputError, did_you_mean
from preprocess.lists.labels import LabelDict
from preprocess.lists.outcomes import SKIP_BLANK_LINE, SKIP_HEADER, SKIP_UNKNOWN_LABEL, RowFailure, RowSkip

_HEADER_NAMES = frozenset({"image_uri", "image_url", "image_path", "image", "uri", "url", "path", "filename", "file"})


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a list.

    Attributes:
      uri: the image's URI as it stands in the list.
      labels: label names as they stand in the list, each once.
      label_ids: the ids of the labels.
      line: number of the line on which the row starts, from 1.
      outcome: the failure or the skip of the row; None if it is still to be embedded.
    """

    uri: str
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    line: int
    outcome: RowFailure | RowSkip | None = None


def _text_lines(stream: BinaryIO, list_path: str) -> Iterator[str]:
    # newline="" keeps line breaks as they are, as the csv module needs it; it splits at \n, \r\n and \r.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    for number, line in enumerate(text, start=1):
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                byte = ord(line[error.start]) & 0xFF
                raise InputError(
                    f"{list_path}:{number}: not UTF-8 (byte 0x{byte:02x}). Save the list as UTF-8."
                ) from error
        yield line


def _cells(stream: BinaryIO, list_path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the row's first line, cells)."""
    # Strict: otherwise a stray quote would silently make one field of all rows up to the next quote.
    reader = csv.reader(_text_lines(stream, list_path), strict=True)
    first_line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                raise InputError(
                    f"{list_path}:{first_line}: a field has more than {csv.field_size_limit()} characters, as no path "
                    "and no label has. Is this a list of images, and is the quote at the end of the field there?"
                ) from error
            raise InputError(
                f"{list_path}:{first_line}: not valid CSV ({error}). A field that holds a comma, a quote or a line "
                'break must stand in double quotes, and a quote within it is written "".'
            ) from error
        if cells is None:
            return
        yield first_line, cells
        first_line = reader.line_num + 1


def _is_header(cells: Sequence[str]) -> bool:
    return cells[0].strip().casefold() in _HEADER_NAMES


def parse_rows(stream: BinaryIO, *, list_path: str, labels: LabelDict, unknown_labels: UnknownLabels) -> Iterator[Row]:
    """Reads a list.

    A list may have quoted fields as in RFC 4180, line ends LF, CRLF or CR, a BOM, blank lines and a header line. Blanks
    around cells and empty label cells are ignored. A label that a row repeats counts once.

    Args:
      stream: the bytes of the list; it is closed when the iterator is exhausted.
      list_path: the path of the list, for messages.
      labels: the dictionary.
      unknown_labels: what to do with a row whose label is not in the dictionary: "fail" raises, "skip" leaves the row
        out, "unlabeled" drops the label and keeps the row.

    Yields:
      One `Row` for each row, in order.

    Raises:
      InputError: the list is not UTF-8 or not CSV, or a label is unknown and `unknown_labels` is "fail".
    """
    for line, cells in _cells(stream, list_path):
        uri = cells[0].strip() if cells else ""
        names = tuple(dict.fromkeys(filter(None, (cell.strip() for cell in cells[1:]))))
        if not uri and not names:
            yield Row("", (), (), line, RowSkip(SKIP_BLANK_LINE, "The line is blank."))
            continue
        if line == 1 and _is_header(cells):
            yield Row(uri, names, (), line, RowSkip(SKIP_HEADER, "The first line names the columns."))
            continue
        if not uri:
            failure = RowFailure("parse", "no_uri", f"{list_path}:{line}: no image URI in the first column.")
            yield Row("", names, (), line, failure)
            continue
        unknown = [name for name in names if name not in labels.ids]
        if unknown and unknown_labels != "unlabeled":
            message = f"Label {unknown[0]!r} is not in the dictionary.{did_you_mean(unknown[0], labels.names)}"
            if unknown_labels == "fail":
                raise InputError(
                    f"{list_path}:{line}: {message} Correct the list or the dictionary, "
                    "or pass --unknown_labels=skip or --unknown_labels=unlabeled."
                )
            yield Row(uri, names, (), line, RowSkip(SKIP_UNKNOWN_LABEL, message))
            continue
        ids = tuple(labels.ids[name] for name in names if name in labels.ids)
        yield Row(uri, names, ids, line)


def check_unchanged(list_path: str, *, checked: str, read: str) -> None:
    """Makes sure that a list is the one that was checked before the job started.

    Args:
      list_path: the path of the list, for the message.
      checked: SHA-256 of the list when it was checked.
      read: SHA-256 of the list as it was read now.

    Raises:
      InputError: the list has changed.
    """
    if read != checked:
        raise InputError(
            f"{list_path}: the list changed after it was checked (its SHA-256 was {checked[:12]}, now {read[:12]}), "
            "so none of its rows was embedded in this run. Put back the list as it was and give the same command "
            "again, or pass --overwrite to begin anew with the list as it is now."
        )
