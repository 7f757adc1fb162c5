"""Corrections of labels: what people decided about photos, as the page of `hugs audit` writes it.

A CSV file with a header. `action` is keep, change, remove or unsure; `label` is the right label of a change. A photo is
named by `image_sha256`, the SHA-256 of its file or at least the first 32 hexadecimal digits of it, or, where that is
not known, by `image_uri`. `by` and `when` say who decided and when. Other columns are not read.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Iterator, Sequence

from configs.csv_text import LABEL_SEPARATOR
from configs.errors import InputError, did_you_mean
from configs.written_tables import PHOTO_COLUMNS
from preprocess.lists.labels import LabelDict

COLUMNS = (*PHOTO_COLUMNS, "action", "label", "was", "by", "when")
ACTIONS = ("keep", "change", "remove", "unsure")
# A record keeps so many bytes of the digest in memory.
DIGEST_BYTES = 16
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{32,64})")
# Programs that make spreadsheets separate cells by these, too.
_DELIMITERS = (",", ";", "\t")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correction:
    """What somebody decided about one photo.

    Attributes:
      digest: the first 16 bytes of the SHA-256 of the file; empty if only the URI is known.
      uri: the photo as its list names it; may be empty if there is a digest.
      action: "change" or "remove"; the others change nothing and are not kept.
      labels: the right labels of a change.
      label_ids: their ids.
      by: who decided; may be empty.
      when: the time, in the words of the file; may be empty.
      line: where the row begins in the file, from 1.
    """

    digest: bytes
    uri: str
    action: str
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    by: str
    when: str
    line: int

    @property
    def decision(self) -> tuple[str, frozenset[int]]:
        """What it says, without who said it."""
        return self.action, frozenset(self.label_ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrections:
    """The changes and removals of a file of corrections.

    Attributes:
      path: of the file.
      by_digest: those of photos whose digest is known.
      by_uri: those of photos of which only the URI is known.
      num_kept: rows that say "keep".
      num_unsure: rows that say "unsure".
    """

    path: str
    by_digest: dict[bytes, Correction]
    by_uri: dict[str, Correction]
    num_kept: int = 0
    num_unsure: int = 0

    def __len__(self) -> int:
        return len(self.by_digest) + len(self.by_uri)

    def __iter__(self) -> Iterator[Correction]:
        yield from self.by_digest.values()
        yield from self.by_uri.values()

    def find(self, uri: str, digest: bytes) -> Correction | None:
        """The correction of a photo, if there is one.

        Args:
          uri: as its list names it.
          digest: 16 or more bytes of the SHA-256 of the file; empty or zeros if it is not known.
        """
        found = self.by_digest.get(digest[:DIGEST_BYTES]) if digest else None
        return found or self.by_uri.get(uri)

    @property
    def sha256(self) -> str:
        """A digest of what they say, 64 hex digits. Who said it and when is not a part of it."""
        said = sorted((entry.digest, entry.uri if not entry.digest else "", *_said(entry)) for entry in self)
        return hashlib.sha256(repr(said).encode()).hexdigest()


def _said(entry: Correction) -> tuple[str, tuple[int, ...]]:
    return entry.action, tuple(sorted(entry.label_ids))


def parse_corrections(raw: bytes, *, path: str, labels: Sequence[str], by: str = "") -> Corrections:
    """Reads a file of corrections.

    Args:
      raw: its bytes: UTF-8 with or without a BOM.
      path: of the file, for messages.
      labels: the dictionary.
      by: who decided, for rows that do not say it.

    Raises:
      InputError: the file is not such a table, a row is broken, a label is not in the dictionary, or two rows
      contradict
        each other.
    """
    dictionary = LabelDict(tuple(labels))
    by_digest: dict[bytes, Correction] = {}
    by_uri: dict[str, Correction] = {}
    first_of: dict[bytes | str, tuple[str, frozenset[int], int]] = {}
    counts = dict.fromkeys(ACTIONS, 0)
    for line, row in _rows(raw, path):
        entry = _entry(line, row, path=path, labels=dictionary, by=by)
        counts[entry.action] += 1
        if entry.action == "unsure":
            continue
        key: bytes | str = entry.digest or entry.uri
        *said, earlier = first_of.setdefault(key, (*entry.decision, line))
        if tuple(said) != entry.decision:
            raise InputError(
                f"{path}:{line}: contradicts line {earlier}, which says something else of the same photo "
                f"({entry.uri or entry.digest.hex()}). Keep one of the two."
            )
        if entry.action in ("change", "remove"):
            (by_digest if entry.digest else by_uri).setdefault(key, entry)  # type: ignore[arg-type]
    return Corrections(
        path=path, by_digest=by_digest, by_uri=by_uri, num_kept=counts["keep"], num_unsure=counts["unsure"]
    )


def _rows(raw: bytes, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The line and the cells of each row, by the name of the column."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save the corrections as UTF-8."
        ) from error
    head = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{line}: not valid CSV ({error}).") from error
        if cells is None:
            break
        if names is None:
            names = [cell.strip().casefold() for cell in cells]
            _check_header(names, path)
        elif any(cell.strip() for cell in cells):
            if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
                raise InputError(f"{path}:{line}: {len(cells)} cells, and the header names {len(names)} columns.")
            yield line, {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
        line = reader.line_num + 1
    if names is None:
        raise InputError(f"{path}: is empty. Corrections begin with a line that names the columns: {_header()}.")


def _header() -> str:
    return ",".join(COLUMNS)


def _check_header(names: Sequence[str], path: str) -> None:
    missing = [name for name in ("action", "label") if name not in names]
    if missing or not {"image_uri", "image_sha256"} & set(names):
        raise InputError(
            f"{path}:1: the first line of corrections names the columns; needed are action, label, and image_sha256 or "
            f"image_uri. Received: {','.join(names)!r}. The page of `hugs audit` downloads such a file: {_header()}."
        )
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{path}:1: names the column {name!r} twice.")


def _entry(line: int, row: dict[str, str], *, path: str, labels: LabelDict, by: str) -> Correction:
    uri, said = row.get("image_uri", ""), row.get("image_sha256", "").casefold()
    match = _DIGEST.fullmatch(said)
    if said and (match is None or len(match[1]) % 2):
        raise InputError(
            f"{path}:{line}: image_sha256 must be the SHA-256 of the image file, 64 hexadecimal digits or the first 32 "
            f"of them. Received: {said!r}."
        )
    digest = bytes.fromhex(match[1])[:DIGEST_BYTES] if match else b""
    if not digest and not uri:
        raise InputError(f"{path}:{line}: names no photo: image_sha256 and image_uri are both empty.")
    action, cell = row.get("action", "").casefold(), row.get("label", "")
    if action not in ACTIONS:
        raise InputError(
            f"{path}:{line}: action must be one of {', '.join(ACTIONS)}.{did_you_mean(action, ACTIONS)} "
            f"Received: {action!r}."
        )
    names = _label_names(cell, labels) if action == "change" else ()
    if action == "change" and not names:
        raise InputError(f"{path}:{line}: a change needs the right label in the column label, which is empty.")
    ids = []
    for name in names:
        found = labels.id_of(name)
        if found is None:
            raise InputError(
                f"{path}:{line}: label {name!r} is not in the dictionary of the records."
                f"{did_you_mean(name, labels.names)} A new class needs another dictionary, and records made with it."
            )
        ids.append(found)
    return Correction(
        digest=digest,
        uri=uri,
        action=action,
        labels=tuple(labels.names[label_id] for label_id in ids),
        label_ids=tuple(dict.fromkeys(ids)),
        by=row.get("by", "") or by,
        when=row.get("when", ""),
        line=line,
    )


def _label_names(cell: str, labels: LabelDict) -> tuple[str, ...]:
    if not cell or labels.id_of(cell) is not None:
        return (cell,) if cell else ()
    return tuple(dict.fromkeys(name.strip() for name in cell.split(LABEL_SEPARATOR.strip()) if name.strip()))
