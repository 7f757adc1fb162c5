"""Decides the format of a list from its start and the dictionary, where that is certain.

Rows `image_uri,label[,label...]` stay what they are. Another format is taken only if nothing else makes sense of the
list: the cells of one reading are labels of the dictionary or names of columns, and those of the plain reading are not.
What looks like another format without being certain is refused in one line that says what was found.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from configs.errors import InputError
from configs.printed_commands import program_command
from preprocess.lists import columns
from preprocess.lists.columns import looks_like_image
from preprocess.lists.labels import LabelDict
from preprocess.lists.list_format import DELIMITER_NAMES, PLAIN, Column, ListFormat
from preprocess.lists.parquet_table import read_cells, schema_names
from preprocess.lists.values import fields_of_json

# The part of a list that is looked at.
_HEAD_BYTES = 256 * 1024
_SAMPLE_ROWS = 200
_SPOOL_BYTES = 64 * 1024 * 1024

# The first cells of rows in the import files of Vertex AI.
ML_USES = frozenset({"train", "training", "validation", "validate", "test", "testing", "unassigned"})
_SPLIT_NAMES = frozenset({"split", "subset", "ml_use", "usage", "fold", "set", "dataset_split"})
# Beginnings of files that are no lists, and what to do with them.
_OTHER_FILES = {
    b"\x1f\x8b": "is compressed with gzip. Unpack it with gunzip",
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook. Unpack it, or save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook. Save the sheet as CSV (UTF-8)",
    b"BZh": "is compressed with bzip2. Unpack it with bunzip2",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd. Unpack it with zstd -d",
    b"\xff\xfe": "is UTF-16. Save it as UTF-8",
    b"\xfe\xff": "is UTF-16. Save it as UTF-8",
    b"\xff\xd8\xff": "is a JPEG image. Name a list of images here; `{ingest}` makes lists of a folder",
    b"\x89PNG": "is a PNG image. Name a list of images here; `{ingest}` makes lists of a folder",
}


def ready(stream: BinaryIO) -> BinaryIO:
    """A stream of the same list that can be read in its format: for Parquet one that can be positioned.

    Args:
      stream: at its start; a Parquet file is read to its end here.
    """
    head = stream.peek(4) if isinstance(stream, io.BufferedReader) else b""
    if not head.startswith(b"PAR1"):
        return stream
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 (who reads the rows closes it)
    shutil.copyfileobj(stream, spool, 1 << 20)
    spool.seek(0)
    return cast(BinaryIO, spool)


def detect_format(stream: BinaryIO, *, list_path: str, labels: LabelDict) -> ListFormat:
    """Decides the format of a list. The position of the stream stays at its start.

    Args:
      stream: of `ready`.
      list_path: the path of the list, for messages.
      labels: the dictionary.

    Raises:
      InputError: the file is no list, or it looks like a format that is not certain.
    """
    if not isinstance(stream, io.BufferedReader):
        return _of_table(dict(read_cells(stream, schema_names(stream, list_path), _SAMPLE_ROWS)), labels, list_path)
    head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic):
            what = what.format(ingest=program_command("ingest"))
            raise InputError(f"{list_path}: not a list of images: the file {what}.")
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    if len(head) == _HEAD_BYTES:  # The last line may be cut.
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lstrip().startswith(("{", "[")):
        found = _of_json(text, first.strip(), labels, list_path)
        if found is not None:
            return found
    return _of_text(text, labels, list_path)


def _of_json(text: str, first: str, labels: LabelDict, list_path: str) -> ListFormat | None:
    """The format of JSON lines; None for a CSV whose first name begins with a bracket."""
    if not _is_object(first):
        # A file of these characters would have to be named by a line that begins a JSON document.
        if first in ("{", "[") or first.startswith(("[{", '{"')):
            raise InputError(
                f"{list_path}: a JSON document, and not one JSON object on each line. Write one line such as "
                '{"image_uri": "a.jpg", "label": "daisy"} for each image (an array: jq -c .[] FILE).'
            )
        return None
    rows: list[dict[str, list[str]]] = []
    for line in text.splitlines():
        if line.strip() and _is_object(line):  # What is no object is refused by the reader, with its line.
            rows.append(fields_of_json(json.loads(line)))
        if len(rows) == _SAMPLE_ROWS:
            break
    names = dict.fromkeys(name for row in rows for name in row)
    return _of_table({name: [row.get(name, []) for row in rows] for name in names}, labels, list_path, "json_lines")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _of_table(
    cells: dict[str, list[list[str]]], labels: LabelDict, list_path: str, kind: Any = "parquet"
) -> ListFormat:
    found = columns.choose(cells, labels, where=list_path)
    one_hot = found.labels if found.one_hot else ()
    return ListFormat(kind=kind, header=tuple(cells), uri=found.uri, labels=found.labels, one_hot=one_hot)


def _table(text: str, delimiter: str) -> list[list[str]]:
    """The cells of the first rows that are not blank, without blanks around them."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append(stripped)
            if len(rows) == _SAMPLE_ROWS:
                break
    except csv.Error:  # The reader of the list says where.
        pass
    return rows


def _of_text(text: str, labels: LabelDict, list_path: str) -> ListFormat:
    names_delimiter = text[:4].casefold() == "sep=" and text[4:5] in DELIMITER_NAMES and text[5:6] in "\r\n"
    if names_delimiter:
        candidates = [text[4]]
        text = text[5:].removeprefix("\r").removeprefix("\n")
    else:
        candidates = [",", "\t", ";", "|"]
    tables = {delimiter: _table(text, delimiter) for delimiter in candidates}
    for delimiter, rows in tables.items():
        if rows and (delimiter == "," or len(rows[0]) > 1) and _has_header(rows, labels):
            return _with_header(
                rows, labels, list_path, ListFormat(delimiter=delimiter, names_delimiter=names_delimiter)
            )
    for found in _without_header(tables, labels):
        return dataclasses.replace(found, names_delimiter=names_delimiter)
    if names_delimiter:
        return ListFormat(delimiter=candidates[0], names_delimiter=True)
    _refuse_what_looks_otherwise(tables, labels, list_path)
    return PLAIN


def _has_header(rows: Sequence[Sequence[str]], labels: LabelDict) -> bool:
    # pandas writes an index without a name.
    names = rows[0][1:] if len(rows[0]) > 2 and rows[0][0].casefold() in ("", "unnamed: 0") else rows[0]
    if columns.is_header(names, labels):
        return True
    # The others of these columns have names of their own, as in `file_name,text`. Then only their cells are labels.
    return (
        columns.is_uri_name(names[0])
        and len(names) == 2
        and len(rows) > 1
        and labels.id_of(names[1]) is None
        and all(looks_like_image(row[0]) for row in rows[1:])
        and _share_known(rows[1:], 0, None, labels) >= 0.5
    )


def _with_header(rows: list[list[str]], labels: LabelDict, list_path: str, base: ListFormat) -> ListFormat:
    names, rows = rows[0], rows[1:]
    plain = dataclasses.replace(base, header=tuple(names))
    if any(len(row) > len(names) for row in rows) and columns.is_uri_name(names[0]):
        return plain  # Rows of several labels under a header of one.
    # Two columns may have one name; positions make the names unique.
    keys = [name if names.index(name) == at else f"{name} ({at + 1})" for at, name in enumerate(names)]
    cells = {key: [[row[at]] if at < len(row) else [""] for row in rows] for at, key in enumerate(keys)}
    index = keys[0] if len(keys) > 2 and names[0].casefold() in ("", "unnamed: 0") else None
    found = columns.choose({key: cells[key] for key in keys if key != index}, labels, where=f"{list_path}:1")
    uri, chosen = keys.index(found.uri), tuple(keys.index(key) for key in found.labels)
    if found.one_hot:
        return dataclasses.replace(plain, uri=uri, labels=chosen, one_hot=tuple(names[at] for at in chosen))
    # Labels in all columns after the image are the plain reading.
    is_rest = chosen == tuple(range(uri + 1, len(names)))
    return dataclasses.replace(plain, uri=uri, labels=None if is_rest else chosen)


def _share_known(rows: Sequence[Sequence[str]], uri: int, at: tuple[int, ...] | None, labels: LabelDict) -> float:
    """The share of rows whose labels are all in the dictionary, of those that have at least one."""
    known = 0
    for row in rows:
        cells = row[uri + 1 :] if at is None else [row[position] for position in at if position < len(row)]
        names = [cell for cell in cells if cell]
        known += bool(names) and all(labels.id_of(name) is not None for name in names)
    return known / len(rows)


def _without_header(tables: dict[str, list[list[str]]], labels: LabelDict) -> Iterator[ListFormat]:
    """The formats, other than the plain one, in which most rows have labels of the dictionary."""
    plain = tables.get(",")
    if plain and _share_known(plain, 0, None, labels) > 0:
        return
    is_one_cell = plain is None or all(len(row) == 1 for row in plain)
    for delimiter, rows in tables.items():
        if not rows:
            continue
        if all(len(row) > 1 for row in rows) and all(_ml_use_cells(row) for row in rows):
            yield ListFormat(delimiter=delimiter, ml_use=True)
        if all(len(row) > 1 for row in rows):
            is_table = is_one_cell or all(looks_like_image(row[0]) for row in rows)
            if delimiter != "," and is_table and _share_known(rows, 0, None, labels) >= 0.5:
                yield ListFormat(delimiter=delimiter)
            if all(looks_like_image(row[1]) for row in rows):
                yield from _with_image_second(rows, delimiter, labels)


def _with_image_second(rows: list[list[str]], delimiter: str, labels: LabelDict) -> Iterator[ListFormat]:
    numbers = [row[0] for row in rows]
    is_index = all(number.isdecimal() and number.isascii() for number in numbers)
    if is_index and [int(number) - int(numbers[0]) for number in numbers] == list(range(len(rows))):
        if _share_known(rows, 1, None, labels) >= 0.5:
            yield ListFormat(delimiter=delimiter, uri=1)
    elif all(len(row) == 2 for row in rows) and _share_known(rows, 1, (0,), labels) >= 0.5:
        yield ListFormat(delimiter=delimiter, uri=1, labels=(0,))


def _ml_use_cells(row: list[str]) -> bool:
    """Whether a row is one of an import file of Vertex AI: a use such as TRAIN or nothing, then a URI."""
    is_use = not row[0] or row[0].casefold() in ML_USES
    return "://" in row[1] if is_use else False


def _refuse_what_looks_otherwise(tables: dict[str, list[list[str]]], labels: LabelDict, list_path: str) -> None:
    """Raises InputError if every row looks like one of another format, which its labels do not confirm."""
    plain = tables[","]
    if not plain or any(len(row) != 1 for row in plain):
        return
    parts = [(row[0].partition(",")[0], row[0].rpartition(",")[2]) for row in plain if "," in row[0]]
    if len(parts) == len(plain) and all(looks_like_image(first) and not looks_like_image(end) for first, end in parts):
        raise InputError(
            f"{list_path}:1: {plain[0][0]!r} is one cell, since the whole row stands in quotes. Some spreadsheets "
            "write a list so that they took for one column. Take these quotes away; only single cells may be quoted."
        )
    for delimiter in ("\t", ";", "|", " "):
        if delimiter == " ":
            rows = [row[0].rsplit(" ", 1) for row in plain]
            if not all(row[-1].isdecimal() or labels.id_of(row[-1]) is not None for row in rows):
                continue
        else:
            rows = tables[delimiter]
        if rows and all(len(row) > 1 and looks_like_image(row[0]) and not looks_like_image(row[-1]) for row in rows):
            label = rows[0][-1]
            known = labels.id_of(label) is not None
            raise InputError(
                f"{list_path}:1: {plain[0][0]!r} is one cell if commas separate the cells. The list seems to be "
                f"separated by {DELIMITER_NAMES[delimiter]}"
                + ("" if known else f", but {label!r} is not in the dictionary{_number_hint(label)}")
                + ". Correct the list or the dictionary, or write rows image_uri,label[,label...]."
            )


def _number_hint(label: str) -> str:
    return ", which names labels and does not number them" if label.isdecimal() else ""


def notes(found: ListFormat) -> Iterator[str]:
    """Lines that say how a list is read, if it is not plain, and what of it is not used although it matters."""
    if not found.is_plain or found.names_delimiter:
        yield f"read as: {found.describe()}"
    splits = [name for name in found.header if columns.normalized(name) in _SPLIT_NAMES]
    used: tuple[Column, ...] = (found.uri, *(found.labels or ()))
    if found.ml_use or any(name not in used and found.header.index(name) not in used for name in splits):
        what = "ML_USE" if found.ml_use else f"column {splits[0]!r}"
        yield (
            f"{what} is not used: all rows go into one set. Make a list of its own for training, for evaluation and "
            "for the test"
        )
