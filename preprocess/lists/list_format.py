"""The format of a list: how its bytes become rows, and which columns hold the image and the labels.

The program that starts a job decides the format of each list once, from the start of the list and the dictionary
(`preprocess.lists.detect`). The job carries it to the workers, so that all readers of a list read the same rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars", " ": "spaces"}

Kind = Literal["delimited", "json_lines", "parquet", "tar"]
# A column: its position in delimited text, else its name. "a.b" is the field b of the object in the column a.
Column = int | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFormat:
    """How a list is read.

    Attributes:
      kind: delimited text (CSV and its relatives), JSON lines, Parquet, or a tar archive of images.
      delimiter: of delimited text.
      names_delimiter: whether row 1 is `sep=,`, as Excel writes it.
      header: the names of the columns, in order; empty if no row names them.
      uri: the column of the image.
      labels: the columns of the labels; None for all columns after the image. Of a tar archive, the one source of
        the labels (see `tar_index.label_source`), or nothing.
      one_hot: the label that a cell with a 1 stands for, one for each of `labels`; empty if cells hold labels.
      ml_use: whether rows may begin with a cell such as TRAIN, as in the import files of Vertex AI.
    """

    kind: Kind = "delimited"
    delimiter: str = ","
    names_delimiter: bool = False
    header: tuple[str, ...] = ()
    uri: Column = 0
    labels: tuple[Column, ...] | None = None
    one_hot: tuple[str, ...] = ()
    ml_use: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether rows are `image_uri,label[,label...]`, as in all lists that earlier versions read."""
        return self.to_json() == _PLAIN_JSON

    def to_json(self) -> dict[str, Any]:
        """The fields that decide which records a list gives, as JSON. Rows without an image, as a header, do not."""
        fields = dataclasses.asdict(self)
        for name in ("names_delimiter", "header"):
            del fields[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def name_of(self, column: Column) -> str:
        """A column as it is named in messages."""
        if isinstance(column, str):
            return repr(column)
        return repr(self.header[column]) if column < len(self.header) else f"{column + 1}"

    def describe(self) -> str:
        """One line that says how the list is read, for people."""
        if self.kind == "tar":
            source = f"labels from {self.labels[0]}" if self.labels else "no labels of the dictionary"
            return f"a tar archive of images, {source}"
        if self.kind == "delimited":
            words = [f"separated by {DELIMITER_NAMES[self.delimiter]}"]
        else:
            words = ["JSON lines" if self.kind == "json_lines" else "Parquet"]
        if self.ml_use:
            words.append(
                "as an import file of Vertex AI (TRAIN, VALIDATION, TEST or nothing, then the image, then labels)"
            )
        else:
            words.append(f"the image in column {self.name_of(self.uri)}")
            words.append(self._describe_labels())
        left_out = [name for at, name in enumerate(self.header) if not self._uses(at, name)]
        if left_out:
            words.append(f"not used: {', '.join(map(repr, left_out))}")
        return ", ".join(words)

    def _describe_labels(self) -> str:
        if self.one_hot:
            return f"a column for each of {len(self.one_hot)} labels, with 1 where an image has it"
        if self.labels is None:
            return "labels in the columns after it"
        if not self.labels:
            return "no labels"
        return f"labels in {', '.join(map(self.name_of, self.labels))}"

    def _uses(self, at: int, name: str) -> bool:
        if self.labels is None and self.kind == "delimited":
            return self.ml_use or at >= int(self.uri)
        columns = (self.uri, *(self.labels or ()))
        return at in columns or any(str(column).split(".")[0] == name for column in columns)


PLAIN = ListFormat()
_PLAIN_JSON = PLAIN.to_json()
