"""The TFRecord container: length, masked CRC-32C of the length, data, masked CRC-32C of the data.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

_HEADER_BYTES = 12
_FOOTER_BYTES = 4


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """One record as it stands in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data))))


def whole_records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file up to the first that is cut short or damaged, if one is."""
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
