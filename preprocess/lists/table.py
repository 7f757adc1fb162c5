"""Reads the rows of a list in its format: for each row the image and the label names, not yet looked up.

A row of Parquet has its number, from 1, in the place of its line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from configs.counts import counted
from configs.errors import InputError
from preprocess.lists.columns import HEADER_NAMES, YES_OR_NO
from preprocess.lists.detect import ML_USES, ready
from preprocess.lists.list_format import ListFormat
from preprocess.lists.outcomes import SKIP_HEADER, RowFailure, RowSkip
from preprocess.lists.parquet_table import read_rows
from preprocess.lists.values import field_of, texts_of

# One row: the line on which it starts, the image, the label names each once, and the outcome if it has one already.
# A plain tuple, since there are millions of them.
RawRow = tuple[int, str, tuple[str, ...], RowFailure | RowSkip | None]


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


def _cells(stream: BinaryIO, list_path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the row's first line, cells)."""
    # Strict: otherwise a stray quote would silently make one field of all rows up to the next quote.
    reader = csv.reader(_text_lines(stream, list_path), delimiter=delimiter, strict=True)
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
    return cells[0].casefold() in HEADER_NAMES


def read_table(stream: BinaryIO, list_format: ListFormat, list_path: str) -> Iterator[RawRow]:
    """The rows of a list, in order.

    Args:
      stream: the bytes of the list; it is closed when the iterator is exhausted.
      list_format: how it is read.
      list_path: its path, for messages.

    Raises:
      InputError: it is not UTF-8 or not in its format.
    """
    if list_format.kind == "parquet":
        return _parquet_rows(stream, list_format, list_path)
    if list_format.kind == "json_lines":
        return _json_rows(stream, list_format, list_path)
    return _delimited_rows(stream, list_format, list_path)


def _delimited_rows(stream: BinaryIO, list_format: ListFormat, list_path: str) -> Iterator[RawRow]:
    skip_lines = int(list_format.names_delimiter)
    first = True
    is_plain = list_format.is_plain or list_format.kind == "tar"  # the index of a tar archive is a plain list
    for line, raw in _cells(stream, list_path, list_format.delimiter):
        if line <= skip_lines:
            yield line, "", (), RowSkip(SKIP_HEADER, "The first line names the delimiter.")
            continue
        cells = [cell.strip() for cell in raw]
        if not any(cells):
            yield line, "", (), None
            continue
        uri, names = cells[0], _each_once(cells[1:])
        if first:
            first = False
            if list_format.header or (line == 1 and _is_header(cells)):
                yield line, uri, names, RowSkip(SKIP_HEADER, "The first line names the columns.")
                continue
        if is_plain:
            yield line, uri, names, None
        elif list_format.ml_use:
            yield _without_ml_use(line, uri, names, cells)
        else:
            yield _of_columns(line, cells, list_format, list_path)


def _without_ml_use(line: int, uri: str, names: tuple[str, ...], cells: Sequence[str]) -> RawRow:
    if uri and uri.casefold() not in ML_USES:
        return line, uri, names, None
    return line, cells[1] if len(cells) > 1 else "", _each_once(cells[2:]), None


def _of_columns(line: int, cells: list[str], list_format: ListFormat, list_path: str) -> RawRow:
    """The row of a table whose columns are chosen."""
    at = int(list_format.uri)
    uri = cells[at] if at < len(cells) else ""
    if list_format.labels is None:
        return line, uri, _each_once(cells[at + 1 :]), None
    width = len(list_format.header)
    if width and any(cells[width:]):
        message = f"{list_path}:{line}: {counted(len(cells), 'cell')}, and the header names {counted(width, 'column')}."
        return line, uri, (), RowFailure("parse", "too_many_cells", message)
    values = [cells[position] if position < len(cells) else "" for position in map(int, list_format.labels)]
    if not list_format.one_hot:
        return line, uri, _each_once(values), None
    return _of_one_hot(line, uri, values, list_format, list_path)


def _each_once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))


def _of_one_hot(line: int, uri: str, values: Sequence[str], list_format: ListFormat, list_path: str) -> RawRow:
    names = []
    for name, value in zip(list_format.one_hot, values, strict=True):
        has_label = YES_OR_NO.get(value.casefold())
        if has_label:
            names.append(name)
        elif has_label is None:
            message = f"{list_path}:{line}: {value!r} in the column of label {name!r}, where 0 or 1 is wanted."
            return line, uri, (), RowFailure("parse", "bad_cell", message)
    return line, uri, tuple(names), None


def _json_rows(stream: BinaryIO, list_format: ListFormat, list_path: str) -> Iterator[RawRow]:
    for line, text in enumerate(_text_lines(stream, list_path), start=1):
        if not text.strip():
            yield line, "", (), None
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{list_path}:{line}: not JSON ({error}). The list has one JSON object on each line."
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{list_path}:{line}: not a JSON object. The list has one JSON object on each line.")
        yield _of_fields(line, row, list_format, list_path)


def _parquet_rows(stream: BinaryIO, list_format: ListFormat, list_path: str) -> Iterator[RawRow]:
    names = [str(list_format.uri), *map(str, list_format.labels or ())]
    with ready(stream) as table:
        for number, row in enumerate(read_rows(table, names, list_path), start=1):
            yield _of_fields(number, row, list_format, list_path)


def _of_fields(line: int, row: dict[str, Any], list_format: ListFormat, list_path: str) -> RawRow:
    uri = field_of(row, str(list_format.uri))
    uri = uri.strip() if isinstance(uri, str) else ""
    if not uri:
        message = f"{list_path}:{line}: no image URI in {list_format.name_of(list_format.uri)}."
        return line, "", (), RowFailure("parse", "no_uri", message)
    values: list[str] = []
    for name in map(str, list_format.labels or ()):
        try:
            texts = texts_of(field_of(row, name))
        except (TypeError, ValueError, OverflowError) as error:
            message = f"{list_path}:{line}: {name!r} holds no label ({error})."
            return line, uri, (), RowFailure("parse", "bad_cell", message)
        values += [texts[0] if texts else ""] if list_format.one_hot else texts
    if list_format.one_hot:
        return _of_one_hot(line, uri, values, list_format, list_path)
    return line, uri, _each_once(values), None
