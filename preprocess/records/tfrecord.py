"""The TFRecord container: length, masked CRC-32C of the length, data, masked CRC-32C of the data.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import google_crc32c

# A record with a larger length in its header is refused. Our records have about 8 KB; records made elsewhere may
# contain the image file too.
MAX_RECORD_BYTES = 64 * 1024 * 1024

_HEADER_BYTES = 12  # The length and its CRC.
_FOOTER_BYTES = 4  # The CRC of the data.
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_GZIP_WINDOW = 31  # Tells zlib that the data has a gzip header.
_PIECE_BYTES = 4 << 20


class MalformedRecordError(Exception):
    """The bytes are not a TFRecord file of examples. The message says what is wrong."""


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """One record with its length and checksums, as in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data))))


def whole_records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file, up to the first one that is truncated or damaged."""
    at = 0
    while at + _HEADER_BYTES <= len(data):
        header = data[at : at + 8]
        (length,) = struct.unpack("<Q", header)
        end = at + _HEADER_BYTES + length
        if end + _FOOTER_BYTES > len(data) or data[at + 8 : at + 12] != struct.pack("<I", _masked_crc(header)):
            return
        record = data[at + _HEADER_BYTES : end]
        if data[end : end + _FOOTER_BYTES] != struct.pack("<I", _masked_crc(record)):
            return
        yield record
        at = end + _FOOTER_BYTES


def split_frames(chunks: Iterable[bytes], *, check: bool = False) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
    """Divides the content of a TFRecord file into records.

    Args:
      chunks: the uncompressed content, in pieces of any size.
      check: whether checksums are verified.

    Yields:
      Some bytes, and the start and end of each complete record's data in them.

    Raises:
      MalformedRecordError: the contents end within a record, a record says that it has more than `MAX_RECORD_BYTES`
        bytes, or a checksum does not hold.
    """
    rest = b""
    length_at = _LENGTH.unpack_from
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        spans = []
        at = 0
        last_header = len(data) - _HEADER_BYTES
        while at <= last_header:
            length = length_at(data, at)[0]
            if check and _CRC.unpack_from(data, at + 8)[0] != _masked_crc(data[at : at + 8]):
                raise MalformedRecordError("the checksum of a record's length does not hold")
            if length > MAX_RECORD_BYTES:
                raise MalformedRecordError(f"a record of {length} bytes")
            start = at + _HEADER_BYTES
            end = start + length
            after = end + _FOOTER_BYTES
            if after > len(data):
                break
            if check and _CRC.unpack_from(data, end)[0] != _masked_crc(data[start:end]):
                raise MalformedRecordError("the checksum of a record does not hold")
            spans.append((start, end))
            at = after
        rest = data[at:]
        if spans:
            yield data, spans
    if rest:
        raise MalformedRecordError("it ends within a record")


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The decompressed content of a gzip file, which may have several members, in pieces of bounded size.

    Raises:
      MalformedRecordError: the data is not gzip, or it is truncated.
    """
    member = zlib.decompressobj(_GZIP_WINDOW)
    fresh = True
    for chunk in chunks:
        data = chunk
        while data:
            if member.eof:
                member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                piece = member.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise MalformedRecordError(f"not gzip: {error}") from error
            fresh = False
            data = member.unused_data if member.eof else member.unconsumed_tail
            if piece:
                yield piece
    # Because of the limit, there may be output left after the last input.
    while not fresh and not member.eof and (piece := member.decompress(b"", _PIECE_BYTES)):
        yield piece
    if not fresh and not member.eof:
        raise MalformedRecordError("it ends within its compressed data")
