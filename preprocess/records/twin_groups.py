"""Reads tables of groups of photos: twins.csv, which `hugs twins` writes, and rows `photo,group` without a header.

In twins.csv a photo is found by the digest of its file, so names and places of photos may change.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re

from configs.errors import InputError
from configs.written_tables import PHOTO_COLUMNS

TWINS_NAME = "twins.csv"
URI_COLUMN, DIGEST_COLUMN = PHOTO_COLUMNS
GROUP_COLUMN = "group"

# Records are compared by the first 16 bytes of the SHA-256; a table that somebody makes may have all 32.
_DIGEST_BYTES = 16
_MAX_HEADER_BYTES = 16 * 1024
_DIGEST = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwinGroups:
    """Which photos are copies of each other.

    Attributes:
      by_digest: the group of a photo by the first 16 bytes of the SHA-256 of its file.
      by_uri: the group of a photo without a digest by its URI, or by what a row `photo,group` calls it.
    """

    by_digest: dict[bytes, str]
    by_uri: dict[str, str]

    def __len__(self) -> int:
        return len(self.by_digest) + len(self.by_uri)


def has_twin_columns(data: bytes) -> bool:
    """Whether a CSV file begins with a header that has the columns of twins.csv."""
    return {DIGEST_COLUMN, GROUP_COLUMN} <= set(_header(data))


def parse_twin_groups(data: bytes, *, path: str, flag: str) -> TwinGroups:
    """Reads twins.csv.

    Args:
      data: CSV with a header: the columns `image_sha256` and `group`, and `image_uri` for photos without a digest.
        Further columns do not matter.
      path: of the file, for the messages.
      flag: the option that named it, for the messages.

    Raises:
      InputError: a column is missing, a row names no photo or no group, or a photo is in two groups.
    """
    header = _header(data)
    missing = [name for name in (DIGEST_COLUMN, GROUP_COLUMN) if name not in header]
    if missing:
        raise InputError(
            f"--{flag}: {path}:1: the header has no column {missing[0]!r}. Received: {','.join(header)[:200]!r}. "
            f"Give the {TWINS_NAME} that `hugs twins` wrote."
        )
    return parse_groups(data, path=path, flag=flag)


def parse_groups(data: bytes, *, path: str, flag: str) -> TwinGroups:
    """Reads a table of groups of either kind.

    Args:
      data: twins.csv; or CSV with a header that has `group` and `image_uri`; or CSV without a header, of rows
        `photo,group`.
      path: of the file, for the messages.
      flag: the option that named it, for the messages.

    Raises:
      InputError: a row names no photo or no group, or has other fields than the others; or a photo is in two groups.
    """
    header = _header(data)
    has_header = GROUP_COLUMN in header and not {DIGEST_COLUMN, URI_COLUMN}.isdisjoint(header)
    groups = TwinGroups(by_digest={}, by_uri={})
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        if has_header:
            next(rows)
        for row in rows:
            where = f"--{flag}: {path}:{rows.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if not has_header and (len(row) != 2 or not all(cell.strip() for cell in row)):
                raise InputError(f"{where}: a row must be photo,group. Received: {','.join(row)[:200]!r}.")
            _add(groups, header if has_header else [URI_COLUMN, GROUP_COLUMN], row, where=where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--{flag}: {path} cannot be read as a CSV file ({error}).") from error
    if not has_header and not len(groups):
        raise InputError(f"--{flag}: {path} is empty.")
    return groups


def _header(data: bytes) -> list[str]:
    """The cells of the first row, without blanks around them."""
    first, _, _ = data[:_MAX_HEADER_BYTES].removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    return [name.strip() for name in next(csv.reader([first.decode("utf-8", "replace").rstrip("\r")]), [])]


def _add(groups: TwinGroups, header: list[str], row: list[str], *, where: str) -> None:
    if len(row) != len(header):
        raise InputError(f"{where}: has {len(row)} fields, and the header has {len(header)}.")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    group, uri = cells[GROUP_COLUMN], cells.get(URI_COLUMN, "")
    digest = cells.get(DIGEST_COLUMN, "").lower().removeprefix("sha256:")
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
