from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.records.wire_format import (
    decode_field,
    decode_only_field,
    decode_varint,
    encode_field,
    encode_varint,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (1 << 35, b"\x80" * 5 + b"\x01")],
)
def test_numbers_are_written_as_the_format_says(value, encoded):
    assert encode_varint(value) == encoded
    assert decode_varint(b"\xff" + encoded + b"\x01", 1) == (value, 1 + len(encoded))


@given(st.integers(0, 1 << 64), st.integers(1, 15), st.binary(max_size=20_000), st.binary(max_size=3))
def test_what_was_written_comes_back(value, number, payload, more):
    assert decode_varint(encode_varint(value), 0) == (value, len(encode_varint(value)))
    field = encode_field(number, payload)
    assert decode_field(memoryview(more + field + more), len(more), number) == (payload, len(more) + len(field))
    assert decode_only_field(memoryview(field), number) == payload


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", IndexError),
        (b"\x0a", IndexError),
        (b"\x0a\x80", IndexError),
        (b"\x0a\x02a", ValueError),
        (b"\x12\x01a", ValueError),
        (b"\x0a\x01ab", ValueError),
    ],
)
def test_what_is_not_one_field_is_refused(data, error):
    with pytest.raises(error):
        decode_only_field(memoryview(data), 1)
