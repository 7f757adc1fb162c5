"""Reads lists of labelled images: CSV rows `image_uri,label[,label...]`, and the other formats of `list_format`.

Each row of a list, also a blank line, gives exactly one `Row`. It is either still to be embedded, or its outcome is
already a failure or a skip. So the number of rows is what `wc -l` counts, if no field contains a line break.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, BinaryIO

from configs.choices import UnknownLabels
from configs.errors import InputError
from preprocess.lists.labels import LabelDict
from preprocess.lists.list_format import PLAIN, ListFormat
from preprocess.lists.outcomes import SKIP_BLANK_LINE, SKIP_UNKNOWN_LABEL, RowFailure, RowSkip
from preprocess.lists.table import read_table
from preprocess.lists.unknown_labels import UnknownLabelHints


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

    def __reduce__(self) -> tuple[type[Row], tuple[Any, ...]]:
        # Beam pickles each row several times. What dataclasses do by themselves takes almost twice as long.
        return Row, (self.uri, self.labels, self.label_ids, self.line, self.outcome)


def parse_rows(
    stream: BinaryIO,
    *,
    list_path: str,
    labels: LabelDict,
    unknown_labels: UnknownLabels,
    list_format: ListFormat = PLAIN,
) -> Iterator[Row]:
    """Reads a list.

    A list may have quoted fields as in RFC 4180, line ends LF, CRLF or CR, a BOM, blank lines and a header line. Blanks
    around cells and empty label cells are ignored. A label that a row repeats counts once.

    Args:
      stream: the bytes of the list; it is closed when the iterator is exhausted.
      list_path: the path of the list, for messages.
      labels: the dictionary.
      unknown_labels: what to do with a row whose label is not in the dictionary: "fail" raises, "skip" leaves the row
        out, "unlabeled" drops the label and keeps the row.
      list_format: of the list, as `preprocess.lists.detect` found it.

    Yields:
      One `Row` for each row, in order.

    Raises:
      InputError: the list is not UTF-8 or not in its format, or a label is unknown and `unknown_labels` is "fail".
    """
    hints = UnknownLabelHints(labels)
    known = labels.ids
    for line, uri, names, outcome in read_table(stream, list_format, list_path):
        if outcome is not None:
            yield Row(uri, names, (), line, outcome)
            continue
        if not uri and not names:
            yield Row("", (), (), line, RowSkip(SKIP_BLANK_LINE, "The line is blank."))
            continue
        if not uri:
            failure = RowFailure("parse", "no_uri", f"{list_path}:{line}: no image URI in the first column.")
            yield Row("", names, (), line, failure)
            continue
        found = [known.get(name) for name in names]
        if None in found:
            found = [labels.id_of(name) for name in names]  # slower: it knows all spellings of Unicode
            if None in found and unknown_labels != "unlabeled":
                label = names[found.index(None)]
                if unknown_labels == "fail":
                    raise InputError(f"{list_path}:{line}: {hints.refusal(label, is_first=line == 1)}")
                yield Row(uri, names, (), line, RowSkip(SKIP_UNKNOWN_LABEL, hints.message(label)))
                continue
            found = list(dict.fromkeys(found))
        yield Row(uri, names, tuple(label_id for label_id in found if label_id is not None), line)


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
