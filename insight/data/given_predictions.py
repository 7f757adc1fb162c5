"""Reads what a model predicted for photos: predictions.csv of the trainer, or the CSV files of `hugs predict_all`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from configs.errors import InputError
from trainer.storage.files import cause_of, has_glob, storage

# The columns of the photo and of the answer, in the files of each program that writes them.
_COLUMNS = (("image_uri", "label"), ("uri", "prediction"))


def read_predictions(paths: Sequence[str], *, flag: str = "predictions") -> dict[str, str]:
    """The predicted label of each photo, by the URI that the list gives it; several labels in one text.

    Args:
      paths: CSV files or globs of them; local or gs://.
      flag: the option that named them, for the messages.

    Raises:
      InputError: nothing matches, a file cannot be read, or it has not the columns of such a file.
    """
    found: dict[str, str] = {}
    for path in _files(paths, flag):
        try:
            text = storage().read(path).decode("utf-8-sig", "surrogateescape")
        except OSError as error:
            raise InputError(f"--{flag}: cannot read {path}: {cause_of(error)}.") from error
        rows = csv.reader(io.StringIO(text, newline=""))
        try:
            header = next(rows, [])
            columns = next((pair for pair in _COLUMNS if set(pair) <= set(header)), None)
            # A map or a list also has image_uri and label; only answers have a score.
            if columns is None or "score" not in header:
                raise InputError(
                    f"--{flag}: {path} has the columns {', '.join(header[:6]) or 'none'}, and those of predictions.csv "
                    "or of the CSV files of `hugs predict_all` are wanted: image_uri or uri, the label and the score."
                )
            photo, answer = (header.index(name) for name in columns)
            for row in rows:
                if not row:
                    continue
                if len(row) <= max(photo, answer):
                    raise InputError(
                        f"--{flag}: {path}, line {rows.line_num}: {len(row)} cells, and the header has {len(header)}."
                    )
                found[row[photo]] = row[answer]
        except csv.Error as error:
            raise InputError(f"--{flag}: {path}, line {rows.line_num}: not CSV ({error}).") from error
    return found


def _files(paths: Sequence[str], flag: str) -> list[str]:
    found: list[str] = []
    for path in paths:
        try:
            matched = storage().match(path) if has_glob(path) else [path]
        except OSError as error:
            raise InputError(f"--{flag}: cannot look at {path}: {cause_of(error)}.") from error
        if not matched:
            raise InputError(f"--{flag}: nothing matches {path!r}.")
        found += matched
    return found
