"""The schema of one record: a `tf.Example` with `image_uri`, `embedding` and `label`.

Names and types are those of the published flowers/hugs sample, so data sets move between the two.
Records are encoded without TensorFlow or protobuf objects: an embedding is already, byte for byte, the
packed float field that the wire format asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

URI_FEATURE = "image_uri"
EMBEDDING_FEATURE = "embedding"
LABEL_FEATURE = "label"


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


def encode_example(*, image_uri: str, embedding: np.ndarray, label_ids: Sequence[int]) -> bytes:
    """Serializes one record as a `tf.Example`.

    Args:
      image_uri: the image's URI as the list gives it.
      embedding: float32, shape [embedding_size].
      label_ids: ids by position in dict.txt, in the order of the row; may be empty. Non-negative.

    Returns:
      The serialized example. The same arguments give the same bytes: features stand in alphabetical order.
    """
    floats = np.ascontiguousarray(embedding, dtype="<f4").tobytes()
    ids = b"".join(_varint(label_id) for label_id in label_ids)
    features = (
        _feature_entry(EMBEDDING_FEATURE, _FLOAT_LIST, _field(1, floats))
        + _feature_entry(URI_FEATURE, _BYTES_LIST, _field(1, image_uri.encode()))
        + _feature_entry(LABEL_FEATURE, _INT64_LIST, _field(1, ids) if ids else b"")
    )
    return _field(1, features)


def feature_spec(embedding_size: int) -> dict[str, Any]:
    """The spec with which `tf.io.parse_example` reads the records.

    Returns:
      `image_uri`: string scalar; `embedding`: float32 [embedding_size]; `label`: int64, varying length
      (0 to n labels a record).
    """
    import tensorflow as tf

    return {
        URI_FEATURE: tf.io.FixedLenFeature([], tf.string),
        EMBEDDING_FEATURE: tf.io.FixedLenFeature([embedding_size], tf.float32),
        LABEL_FEATURE: tf.io.RaggedFeature(tf.int64),
    }
