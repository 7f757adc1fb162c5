"""Lists of labelled images: CSV rows `image_uri,label[,label...]`, and what becomes of each row.

Every row of a list, blank lines included, yields exactly one `Row`: one to embed, or one that has ended
already as a failure or a skip. Line counts therefore agree with what `wc -l` says of a list whose fields
hold no line breaks.
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
      uri: the image's URI as the list gives it.
      labels: label names as the list gives them, without repeats.
      label_ids: their ids by position in dict.txt.
      line: number of the line on which the row starts, from 1.
      outcome: how the row has ended already; None if it is still to be embedded.
    """

    uri: str
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    line: int
    outcome: RowFailure | RowSkip | None = None


def _text_lines(stream: BinaryIO, list_path: str) -> Iterator[str]:
    # newline="" keeps line breaks as they are, as the csv module asks; it splits at \n, \r\n and \r.
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
    # Strict: a stray quote would otherwise swallow the rows up to the next one, and nobody would know.
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

    Quoting as in RFC 4180, LF, CRLF or CR line ends, a BOM, blank lines and a header line are understood.
    Blanks around cells and empty label cells mean nothing; a label that a row repeats counts once.

    Args:
      stream: the list's bytes; closed by the time the iterator is exhausted.
      list_path: names the list in messages, and relative URIs are relative to its folder.
      labels: the dictionary.
      unknown_labels: what becomes of a row with a label that the dictionary lacks: "fail" raises, "skip"
        leaves the row out, "unlabeled" drops the label and keeps the row.

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
      list_path: names it in the message.
      checked: SHA-256 of what was read then.
      read: SHA-256 of what was read now, to the end.

    Raises:
      InputError: it is another.
    """
    if read != checked:
        raise InputError(
            f"{list_path}: the list changed after it was checked (its SHA-256 was {checked[:12]}, now {read[:12]}), "
            "so none of its rows was embedded in this run. Put back the list as it was and give the same command "
            "again, or pass --overwrite to begin anew with the list as it is now."
        )
