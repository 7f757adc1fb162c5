"""The wire format of protocol buffers, as far as a record needs it: varints and length-delimited fields.

Encoded and decoded by hand because there are millions of records: an object of protobuf for each would cost more than
all else that is done to a record here.
"""

from __future__ import annotations


def encode_varint(value: int) -> bytes:
    """A number, which must not be negative: 7 bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
      IndexError: the data end before the number does.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def field_tag(number: int) -> bytes:
    """What a length-delimited field (wire type 2) begins with; its length and its payload follow."""
    return encode_varint(number << 3 | 2)


def encode_field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return field_tag(number) + encode_varint(len(payload)) + payload


def decode_field(data: memoryview, at: int, number: int) -> tuple[memoryview, int]:
    """The payload of the length-delimited field `number` (1 to 15) at a position, and the position after it.

    Raises:
      IndexError: the data end before the length of the field.
      ValueError: another field stands there, or its payload runs over the end.
    """
    if data[at] != (number << 3 | 2):
        raise ValueError(f"field {number} expected at byte {at}")
    length = data[at + 1]
    at += 2
    if length >= 0x80:  # Most lengths are one byte, and a call for those would cost a tenth of reading a record.
        length, at = decode_varint(data, at - 1)
    if at + length > len(data):
        raise ValueError("a field runs over the end")
    return data[at : at + length], at + length


def decode_only_field(data: memoryview, number: int) -> memoryview:
    """The payload of the length-delimited field `number` (1 to 15), which must be all that there is.

    Raises:
      IndexError: the data end before the length of the field.
      ValueError: another field stands there, or something else after it.
    """
    payload, end = decode_field(data, 0, number)
    if end != len(data):
        raise ValueError(f"more than field {number}")
    return payload
