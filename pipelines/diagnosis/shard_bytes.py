"""Looks into shards without the libraries for records: finds a URI, and counts whole records."""

from __future__ import annotations

import gzip
import zlib

from pipelines.diagnosis.look import Look
from preprocess.storage.base import PARTIAL_SUFFIX

_LENGTH_BYTES, _FRAME_BYTES = 8, 16
_GZIP_WBITS = 31


def holds(path: str, uri: str, look: Look) -> bool:
    """Whether a shard has a record of a URI."""
    try:
        data = look.storage.read(path)
        if path.removesuffix(PARTIAL_SUFFIX).endswith(".gz"):
            data = gzip.decompress(data) if path.endswith(".gz") else zlib.decompressobj(_GZIP_WBITS).decompress(data)
    except (OSError, EOFError, zlib.error):
        return False
    text = uri.encode("utf-8", "surrogateescape")
    # A text of the wire format has its length before it, so that 1.jpg is not found in 11.jpg.
    return _varint(len(text)) + text in data


def whole_records(path: str) -> int:
    """The number of whole records in a local shard that may be cut off anywhere. Embeddings are not looked at."""
    try:
        with open(path, "rb") as stream:
            if path.removesuffix(PARTIAL_SUFFIX).endswith(".gz"):
                data = zlib.decompressobj(_GZIP_WBITS).decompress(stream.read())
            else:
                data = stream.read()
    except (OSError, zlib.error):
        return 0
    at = found = 0
    while at + _LENGTH_BYTES <= len(data):
        at += int.from_bytes(data[at : at + _LENGTH_BYTES], "little") + _FRAME_BYTES
        found += at <= len(data)
    return found


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
