"""The record parser: turns the bytes of a TFRecord file into arrays, without a protobuf object for each record.

It recognizes the byte layout that `records.example.encode_example` writes, and then copies each embedding once.
Protocol buffers allow other orders and encodings of the same record; such records go through `tf.io.parse_example`.

The CRCs of the container are not checked. They would detect damage on disk, but every reader of shards already checks
the SHA-256 of the whole shard, which detects all damage.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from preprocess.records.example import (
    EMBEDDING_FEATURE,
    LABEL_FEATURE,
    URI_FEATURE,
    encode_example,
    feature_spec,
)
from preprocess.records.tfrecord import MalformedRecordError

_MAX_CACHED_LABELS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Consecutive records.

    Attributes:
      uris: n strings.
      embeddings: float32, shape [n, embedding_size].
      label_ids: int64, the label ids of all records, one record after the other.
      label_counts: int64, shape [n]: how many labels each record has.
    """

    uris: list[str]
    embeddings: np.ndarray
    label_ids: np.ndarray
    label_counts: np.ndarray

    def __len__(self) -> int:
        return len(self.uris)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


class RecordParser:
    """Parses records of one embedding size."""

    def __init__(self, embedding_size: int):
        self._size = embedding_size
        # The bytes before and after the floats of a record are taken from the encoder, not repeated here.
        floats = np.full(embedding_size, np.pi, np.float32)
        blank = encode_example(image_uri="", embedding=floats, label_ids=())
        _, body = _varint(blank, 1)
        first_float = blank.index(floats.tobytes())
        self._before_floats = blank[body:first_float]
        self._before_uri, self._before_label = (
            b"\n" + bytes([len(name)]) + name.encode() + b"\x12" for name in (URI_FEATURE, LABEL_FEATURE)
        )
        # All digests have the same length, so the bytes around a digest are always the same. A record may have no
        # digest.
        digest = bytes(range(32))
        with_digest = encode_example(image_uri="", embedding=floats, label_ids=(), image_sha256=digest)
        self._before_digest = with_digest[with_digest.index(floats.tobytes()) + 4 * embedding_size :].split(digest)[0]
        self._digest_entry_bytes = len(self._before_digest) + len(digest)
        self._label_entries: dict[bytes, tuple[int, ...]] = {}

    def parse(self, data: bytes, spans: list[tuple[int, int]]) -> Records:
        """Parses the records at the given positions.

        Raises:
          MalformedRecordError: a record is not an example with a URI, an embedding of this size and labels.
        """
        embeddings = np.empty((len(spans), self._size), np.float32)
        uris: list[str] = []
        ids: list[int] = []
        counts: list[int] = []
        for row, (start, end) in enumerate(spans):
            try:
                found = self._own_layout(data, start, end)
            except (IndexError, UnicodeDecodeError):
                found = None
            if found is None:
                return self._any_layout([data[start:end] for start, end in spans])
            first_float, uri, label_ids = found
            embeddings[row] = np.frombuffer(data, "<f4", self._size, first_float)
            uris.append(uri)
            ids.extend(label_ids)
            counts.append(len(label_ids))
        return Records(
            uris=uris,
            embeddings=embeddings,
            label_ids=np.array(ids, np.int64),
            label_counts=np.array(counts, np.int64),
        )

    def _own_layout(self, data: bytes, start: int, end: int) -> tuple[int, str, tuple[int, ...]] | None:
        """The position of the floats, the URI and the labels; None if the record does not have our byte layout."""
        if data[start] != 0x0A:
            return None
        length, at = _varint(data, start + 1)
        if at + length != end or not data.startswith(self._before_floats, at):
            return None
        first_float = at + len(self._before_floats)
        at = first_float + 4 * self._size
        if data.startswith(self._before_digest, at):
            at += self._digest_entry_bytes
        if at >= end or data[at] != 0x0A:
            return None
        length, at = _varint(data, at + 1)
        uri_end = at + length
        if uri_end > end or not data.startswith(self._before_uri, at):
            return None
        # Feature, BytesList and value are nested, and each of them must end at the end of the entry.
        length, at = _varint(data, at + len(self._before_uri))
        if at + length != uri_end or data[at] != 0x0A:
            return None
        length, at = _varint(data, at + 1)
        if at + length != uri_end or data[at] != 0x0A:
            return None
        length, at = _varint(data, at + 1)
        if at + length != uri_end:
            return None
        label_ids = self._labels(data[uri_end:end])
        return None if label_ids is None else (first_float, data[at:uri_end].decode(), label_ids)

    def _labels(self, entry: bytes) -> tuple[int, ...] | None:
        known = self._label_entries.get(entry)
        if known is not None:
            return known
        # A set has few combinations of labels, so this runs rarely and may be slow. It reads the ids at the positions
        # of our layout and checks that the encoder makes the same bytes from them.
        ids = []
        length, at = _varint(entry, 1)
        if at + length != len(entry) or not entry.startswith(self._before_label, at):
            return None
        _, at = _varint(entry, at + len(self._before_label))
        length, at = _varint(entry, at + 1)
        if length:
            _, at = _varint(entry, at + 1)
            while at < len(entry):
                label_id, at = _varint(entry, at)
                ids.append(label_id)
        empty = np.zeros(0, np.float32)
        if max(ids, default=0) >= 1 << 63 or not encode_example(image_uri="", embedding=empty, label_ids=ids).endswith(
            entry
        ):
            return None
        if len(self._label_entries) < _MAX_CACHED_LABELS:
            self._label_entries[entry] = tuple(ids)
        return tuple(ids)

    def _any_layout(self, records: list[bytes]) -> Records:
        try:
            parsed = tf.io.parse_example(tf.constant(records, tf.string), feature_spec(self._size))
        except UnicodeDecodeError as error:  # TensorFlow fails to decode the record for its message.
            raise MalformedRecordError("a record is not a tf.Example") from error
        except tf.errors.OpError as error:
            lines = (line.replace("{{function_node", "").strip() for line in str(error.message).splitlines())
            raise MalformedRecordError(next((line for line in lines if line), type(error).__name__)[:200]) from error
        labels = parsed[LABEL_FEATURE]
        return Records(
            uris=[uri.decode("utf-8", "replace") for uri in parsed[URI_FEATURE].numpy()],
            embeddings=parsed[EMBEDDING_FEATURE].numpy(),
            label_ids=labels.values.numpy(),
            label_counts=labels.row_lengths().numpy().astype(np.int64),
        )
