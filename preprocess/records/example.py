"""The schema of one record: a `tf.Example` with `image_uri`, `embedding`, `label` and `image_sha256`.

The first three have the names and types of the published flowers/hugs sample, so both can read each other's data sets.
The fourth identifies an image by its content: with it embeddings are found again and duplicates are detected. Records
are encoded without TensorFlow or protobuf objects, because the bytes of an embedding are already the packed float field
of the wire format.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

URI_FEATURE = "image_uri"
EMBEDDING_FEATURE = "embedding"
LABEL_FEATURE = "label"
SHA256_FEATURE = "image_sha256"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


# Field numbers of tensorflow/core/example/{example,feature}.proto.
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


def _feature_entry(name: str, kind: int, values: bytes) -> bytes:
    """One entry of the `Features.feature` map: key (field 1) and Feature (field 2)."""
    return _field(1, _field(1, name.encode()) + _field(2, _field(kind, values)))


@functools.lru_cache(maxsize=8)
def _before_floats(num_bytes: int) -> bytes:
    """The bytes before the floats in the entry of an embedding. No bytes follow the floats."""
    entry = _feature_entry(EMBEDDING_FEATURE, _FLOAT_LIST, _field(1, bytes(num_bytes)))
    return entry[: len(entry) - num_bytes]


@functools.lru_cache(maxsize=4096)
def _label_entry(label_ids: tuple[int, ...]) -> bytes:
    ids = b"".join(_varint(label_id) for label_id in label_ids)
    return _feature_entry(LABEL_FEATURE, _INT64_LIST, _field(1, ids) if ids else b"")


def encode_example(
    *, image_uri: str, embedding: np.ndarray, label_ids: Sequence[int], image_sha256: bytes = b""
) -> bytes:
    """Serializes one record as a `tf.Example`.

    Args:
      image_uri: the image's URI as it stands in the list.
      embedding: float32, shape [embedding_size].
      label_ids: ids by position in dict.txt, in the order of the row; may be empty. Non-negative.
      image_sha256: SHA-256 of the image file, 32 bytes; left out if empty.

    Returns:
      The serialized example. The same arguments give the same bytes: features stand in alphabetical order.
    """
    floats = np.ascontiguousarray(embedding, dtype="<f4").tobytes()
    return _field(
        1,
        b"".join(
            (
                _before_floats(len(floats)),
                floats,
                _feature_entry(SHA256_FEATURE, _BYTES_LIST, _field(1, image_sha256)) if image_sha256 else b"",
                _feature_entry(URI_FEATURE, _BYTES_LIST, _field(1, image_uri.encode())),
                _label_entry(tuple(label_ids)),
            )
        ),
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DecodedExample:
    """The content of a record that this pipeline made.

    Attributes:
      image_uri: the image's URI as it stands in the list.
      embedding: float32 [embedding_size].
      image_sha256: SHA-256 of the image file; empty if the record has none.
    """

    image_uri: str
    embedding: np.ndarray
    image_sha256: bytes


def decode_example(data: bytes) -> DecodedExample:
    """Reads the URI, the embedding and the digest of a record that `encode_example` made.

    Raises:
      ValueError: it is another `tf.Example`, or none.
    """
    try:
        features = _only_field(memoryview(data), 1)
        entries: dict[str, memoryview] = {}
        at = 0
        while at < len(features):
            entry, at = _next_field(features, at, 1)
            name, value_at = _next_field(entry, 0, 1)
            feature = _only_field(entry[value_at:], 2)
            if bytes(name) != LABEL_FEATURE.encode():
                kind = _FLOAT_LIST if bytes(name) == EMBEDDING_FEATURE.encode() else _BYTES_LIST
                entries[bytes(name).decode()] = _only_field(_only_field(feature, kind), 1)
        return DecodedExample(
            bytes(entries[URI_FEATURE]).decode(),
            np.frombuffer(entries[EMBEDDING_FEATURE], "<f4"),
            bytes(entries.get(SHA256_FEATURE, b"")),
        )
    except (IndexError, KeyError) as error:
        raise ValueError(f"not a record of this pipeline ({error!r})") from error


def _next_field(data: memoryview, at: int, number: int) -> tuple[memoryview, int]:
    """The payload of the length-delimited field `number` at a position, and the position after it."""
    if data[at] != (number << 3 | 2):
        raise ValueError(f"field {number} expected at byte {at}")
    at += 1
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if at + length > len(data):
        raise ValueError("a field runs over the end")
    return data[at : at + length], at + length


def _only_field(data: memoryview, number: int) -> memoryview:
    payload, end = _next_field(data, 0, number)
    if end != len(data):
        raise ValueError(f"more than field {number}")
    return payload


def feature_spec(embedding_size: int) -> dict[str, Any]:
    """The spec with which `tf.io.parse_example` reads the records.

    Returns:
      `image_uri`: string scalar; `embedding`: float32 [embedding_size]; `label`: int64, varying length
      (0 to n labels a record). The digest is not read, because records made elsewhere do not have it.
    """
    import tensorflow as tf

    return {
        URI_FEATURE: tf.io.FixedLenFeature([], tf.string),
        EMBEDDING_FEATURE: tf.io.FixedLenFeature([embedding_size], tf.float32),
        LABEL_FEATURE: tf.io.RaggedFeature(tf.int64),
    }
