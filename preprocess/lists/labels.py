"""The label dictionary, dict.txt: one label on each line. The id of a label is its position, without blank lines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping

from configs.errors import InputError
from configs.list_names import DICT_NAME

# Enough for millions of labels. A longer file is not a dictionary.
MAX_LABEL_DICT_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class LabelDict:
    """Label names in the order of their ids, and the ids by name.

    Unicode has several spellings of one text, such as an "é" of one or of two code points. They are one label.

    Attributes:
      names: the labels.
      optional: whether lists may do without labels, as lists of photos to answer for. A table without a column of
        labels is then no fault of it.
      ids: the ids by name.
    """

    names: tuple[str, ...]
    optional: bool = dataclasses.field(default=False, kw_only=True)
    ids: Mapping[str, int] = dataclasses.field(init=False, repr=False, compare=False)
    _ids_of_nfc: Mapping[str, int] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {name: position for position, name in enumerate(self.names)})
        object.__setattr__(self, "_ids_of_nfc", {_nfc(name): position for name, position in self.ids.items()})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """The digest of the names in their order, which is a part of the definition of a job: 64 hex digits."""
        return hashlib.sha256(json.dumps(list(self.names)).encode()).hexdigest()

    def id_of(self, name: str) -> int | None:
        """The id of a label in any spelling of Unicode; None if it is not in the dictionary."""
        found = self.ids.get(name)
        return self._ids_of_nfc.get(_nfc(name)) if found is None else found


def _nfc(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def parse_label_dict(raw: bytes, *, where: str) -> LabelDict:
    """Reads a dict.txt: UTF-8 with or without a BOM, with any line ends. Blanks around a label are ignored.

    Raises:
      InputError: it is not UTF-8, names a label twice (also in two spellings of Unicode), or has no label.
    """
    names: dict[str, int] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            name = line.decode().strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where}:{number}: not UTF-8 (byte 0x{line[error.start]:02x}). Save the file as UTF-8."
            ) from error
        if not name:
            continue
        if name in names:
            raise InputError(
                f"{where}:{number}: label {name!r} stands on line {names[name]} already; "
                "each label may stand once. Remove one of the two lines."
            )
        if (earlier := lines.setdefault(_nfc(name), number)) != number:
            raise InputError(
                f"{where}:{number}: label {name!r} stands on line {earlier} already, spelled with other code points of "
                "Unicode (NFC and NFD are one label). Remove one of the two lines."
            )
        names[name] = number
    if not names:
        raise InputError(f"{where}: no label in it. Write one label a line.")
    return LabelDict(tuple(names))


def dictionary_beside(lists: Iterable[str], sha256: str, read: Callable[[str], bytes | None]) -> str | None:
    """The path of the dictionary that lies beside one of some lists, and is the one with which their job was defined.

    Args:
      lists: paths.
      sha256: of the dictionary, as `LabelDict.sha256`.
      read: gives the content of a file; None if there is none.

    Returns:
      None if there is no dictionary, or another one.
    """
    for folder in dict.fromkeys(posixpath.dirname(path) for path in lists):
        path = posixpath.join(folder, DICT_NAME)
        raw = read(path)
        try:
            if raw is not None and parse_label_dict(raw, where=path).sha256 == sha256:
                return path
        except InputError:
            continue
    return None
