"""Reads twins.csv, the table of photos that are copies of each other, which `hugs twins` writes.

Whoever uses it finds a photo by the digest of its file, so names and places of photos may change.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re

from configs.errors import InputError

TWINS_NAME = "twins.csv"
URI_COLUMN, DIGEST_COLUMN, GROUP_COLUMN = "image_uri", "image_sha256", "group"

# Records are compared by the first 16 bytes of the SHA-256; a table that somebody makes may have all 32.
_DIGEST_BYTES = 16
_DIGEST = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwinGroups:
    """Which photos are copies of each other.

    Attributes:
      by_digest: the group of a photo by the first 16 bytes of the SHA-256 of its file.
      by_uri: the group of a photo without a digest by its URI.
    """

    by_digest: dict[bytes, str]
    by_uri: dict[str, str]

    def __len__(self) -> int:
        return len(self.by_digest) + len(self.by_uri)


def has_twin_columns(data: bytes) -> bool:
    """Whether a CSV file begins with a header that has the columns of twins.csv."""
    first, _, _ = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    names = {name.strip().strip('"') for name in first.decode("utf-8", "replace").split(",")}
    return {DIGEST_COLUMN, GROUP_COLUMN} <= names


def parse_twin_groups(data: bytes, *, path: str, flag: str) -> TwinGroups:
    """Reads the table.

    Args:
      data: CSV with the columns `image_sha256` and `group`, and `image_uri` for photos without a digest. Further
        columns do not matter.
      path: of the file, for the messages.
      flag: the option that named it, for the messages.

    Raises:
      InputError: a column is missing, a row names no photo or no group, or a photo is in two groups.
    """
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in (DIGEST_COLUMN, GROUP_COLUMN) if name not in header]
        if missing:
            raise InputError(
                f"--{flag}: {path}:1: the header has no column {missing[0]!r}. Received: {','.join(header)[:200]!r}. "
                f"Give the {TWINS_NAME} that `hugs twins` wrote."
            )
        groups = TwinGroups(by_digest={}, by_uri={})
        for row in rows:
            if any(cell.strip() for cell in row):
                _add(groups, header, row, where=f"--{flag}: {path}:{rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--{flag}: {path} cannot be read as a CSV file ({error}).") from error
    return groups


def _add(groups: TwinGroups, header: list[str], row: list[str], *, where: str) -> None:
    if len(row) != len(header):
        raise InputError(f"{where}: has {len(row)} fields, and the header has {len(header)}.")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    group, uri = cells[GROUP_COLUMN], cells.get(URI_COLUMN, "")
    digest = cells[DIGEST_COLUMN].lower()
    if not group:
        raise InputError(f"{where}: {GROUP_COLUMN} is empty. Name the group of {uri or digest!r}.")
    if not digest and not uri:
        raise InputError(f"{where}: {DIGEST_COLUMN} and {URI_COLUMN} are empty. One of them must name the photo.")
    if digest and not _DIGEST.fullmatch(digest):
        raise InputError(f"{where}: {DIGEST_COLUMN} must have 32 or 64 hexadecimal digits. Received: {digest[:80]!r}.")
    if digest:
        other = groups.by_digest.setdefault(bytes.fromhex(digest)[:_DIGEST_BYTES], group)
    else:
        other = groups.by_uri.setdefault(uri, group)
    if other != group:
        raise InputError(f"{where}: {uri or digest!r} is in two groups, {other!r} and {group!r}. Keep one.")
