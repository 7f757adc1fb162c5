"""The schema of one record: a `tf.Example` of `image_uri`, `embedding`, `label` and what else is known of the image.

The first three have the names and types of the published flowers/hugs sample, so both can read each other's data sets.
`image_sha256` identifies an image by its content: with it embeddings are found again and duplicates are detected.
`image_phash` (`images.perceptual_hash`) finds copies that are not equal byte for byte; records of earlier versions and
imported ones do not have it. `view_embeddings` is in records of several views (`records.views`) only: the embeddings of
views 1 and further, one after the other. `embedding` is always that of view 0, so who knows nothing of views reads the
records as ever. Records are encoded without TensorFlow or protobuf objects, because the bytes of an embedding are
already the packed float field of the wire format.

Whatever depends on the layout of a record is here: `encode_example` writes one, `decode_example` reads a single one,
and `RecordLayout` reads millions of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocess.records.wire_format import (
    decode_field,
    decode_only_field,
    decode_varint,
    encode_field,
    encode_varint,
    field_tag,
)

URI_FEATURE = "image_uri"
EMBEDDING_FEATURE = "embedding"
LABEL_FEATURE = "label"
SHA256_FEATURE = "image_sha256"
HASH_FEATURE = "image_phash"
VIEWS_FEATURE = "view_embeddings"

SHA256_BYTES = 32
HASH_BYTES = 32
_MAX_CACHED_LABELS = 4096
_MAX_CACHED_LENGTHS = 1024

# Field numbers of tensorflow/core/example/{example,feature}.proto.
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_FIELD_1 = field_tag(1)[0]


def _feature_entry(name: str, kind: int, values: bytes) -> bytes:
    """One entry of the `Features.feature` map: key (field 1) and Feature (field 2)."""
    return encode_field(1, encode_field(1, name.encode()) + encode_field(2, encode_field(kind, values)))


@functools.lru_cache(maxsize=_MAX_CACHED_LENGTHS)
def _before_values(feature: str, kind: int, num_bytes: int) -> bytes:
    """The bytes before the values in the entry of a feature: of floats, or of one text. No bytes follow the values.

    They depend on the length alone, so they are made once for each length, and not for each record.
    """
    entry = _feature_entry(feature, kind, encode_field(1, bytes(num_bytes)))
    return entry[: len(entry) - num_bytes]


def bytes_entry(name: str, value: bytes) -> bytes:
    """The entry of a feature of one text or some bytes."""
    return _before_values(name, _BYTES_LIST, len(value)) + value


@functools.lru_cache(maxsize=_MAX_CACHED_LABELS)
def _label_entry(label_ids: tuple[int, ...]) -> bytes:
    ids = b"".join(encode_varint(label_id) for label_id in label_ids)
    return _feature_entry(LABEL_FEATURE, _INT64_LIST, encode_field(1, ids) if ids else b"")


def encode_example(
    *,
    image_uri: str,
    embedding: np.ndarray,
    label_ids: Sequence[int],
    image_sha256: bytes = b"",
    image_hash: bytes = b"",
    view_embeddings: np.ndarray | None = None,
) -> bytes:
    """Serializes one record as a `tf.Example`.

    Args:
      image_uri: the image's URI as it stands in the list.
      embedding: float32, shape [embedding_size].
      label_ids: ids by position in dict.txt, in the order of the row; may be empty. Non-negative.
      image_sha256: SHA-256 of the image file, 32 bytes; left out if empty.
      image_hash: the perceptual hash of the image, 32 bytes; left out if empty.
      view_embeddings: float32, shape [views - 1, embedding_size], of views 1 and further; None for one view.

    Returns:
      The serialized example. The same arguments give the same bytes: features stand in alphabetical order.
    """
    floats = np.ascontiguousarray(embedding, dtype="<f4").tobytes()
    of_views = b"" if view_embeddings is None else np.ascontiguousarray(view_embeddings, dtype="<f4").tobytes()
    return encode_field(
        1,
        b"".join(
            (
                _before_values(EMBEDDING_FEATURE, _FLOAT_LIST, len(floats)),
                floats,
                bytes_entry(HASH_FEATURE, image_hash) if image_hash else b"",
                bytes_entry(SHA256_FEATURE, image_sha256) if image_sha256 else b"",
                bytes_entry(URI_FEATURE, image_uri.encode()),
                _label_entry(tuple(label_ids)),
                _before_values(VIEWS_FEATURE, _FLOAT_LIST, len(of_views)) if of_views else b"",
                of_views,
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
      view_embeddings: float32 [views - 1, embedding_size], of views 1 and further; None if the record has one view.
      image_hash: the perceptual hash of the image; empty if the record has none.
    """

    image_uri: str
    embedding: np.ndarray
    image_sha256: bytes
    view_embeddings: np.ndarray | None = None
    image_hash: bytes = b""

    @property
    def embeddings(self) -> np.ndarray:
        """Those of all views: float32 [embedding_size] for one view, [views, embedding_size] for several."""
        if self.view_embeddings is None:
            return self.embedding
        return np.concatenate([self.embedding[np.newaxis], self.view_embeddings])


def decode_example(data: bytes) -> DecodedExample:
    """Reads the URI, the embeddings, the digest and the hash of a record that `encode_example` made.

    Raises:
      ValueError: it is another `tf.Example`, or none.
    """
    try:
        features = decode_only_field(memoryview(data), 1)
        entries: dict[str, memoryview] = {}
        at = 0
        while at < len(features):
            entry, at = decode_field(features, at, 1)
            name, value_at = decode_field(entry, 0, 1)
            feature = decode_only_field(entry[value_at:], 2)
            if bytes(name) != LABEL_FEATURE.encode():
                kind = _FLOAT_LIST if bytes(name).decode() in (EMBEDDING_FEATURE, VIEWS_FEATURE) else _BYTES_LIST
                entries[bytes(name).decode()] = decode_only_field(decode_only_field(feature, kind), 1)
        embedding = np.frombuffer(entries[EMBEDDING_FEATURE], "<f4")
        views = np.frombuffer(entries[VIEWS_FEATURE], "<f4") if VIEWS_FEATURE in entries else None
        return DecodedExample(
            bytes(entries[URI_FEATURE]).decode(),
            embedding,
            bytes(entries.get(SHA256_FEATURE, b"")),
            None if views is None else views.reshape(-1, len(embedding)),
            bytes(entries.get(HASH_FEATURE, b"")),
        )
    except (IndexError, KeyError) as error:
        raise ValueError(f"not a record of this pipeline ({error!r})") from error


class RecordLayout:
    """Where the parts of a record stand that `encode_example` made, for embeddings of one size.

    This is the fast way to read records: most of one is compared with bytes that are the same in all of them, and
    nothing is copied but the URI, the digest and the hash.

    Attributes:
      before_floats: what stands before the floats in the entry of the embedding.
    """

    def __init__(self, embedding_size: int):
        self._floats_bytes = 4 * embedding_size
        self.before_floats = _before_values(EMBEDDING_FEATURE, _FLOAT_LIST, self._floats_bytes)
        # What stands before the embeddings of further views, by the number of bytes with them.
        self._before_views: dict[int, bytes] = {}
        # Hashes and digests have one length, so what stands before one is always the same. A record may have none.
        self._before_hash = bytes_entry(HASH_FEATURE, bytes(HASH_BYTES))[:-HASH_BYTES]
        self._hash_entry_bytes = len(self._before_hash) + HASH_BYTES
        self._before_digest = bytes_entry(SHA256_FEATURE, bytes(SHA256_BYTES))[:-SHA256_BYTES]
        self._digest_entry_bytes = len(self._before_digest) + SHA256_BYTES
        self._before_uri, self._before_label = (
            encode_field(1, name.encode()) + field_tag(2) for name in (URI_FEATURE, LABEL_FEATURE)
        )
        self._label_entries: dict[bytes, tuple[int, ...]] = {}

    def find(self, data: bytes, start: int, end: int) -> tuple[int, bytes, bytes, str, tuple[int, ...]] | None:
        """Finds the parts of the record `data[start:end]`.

        Returns:
          The position of the first float, the perceptual hash of the image and the SHA-256 of its file (each empty if
          the record has none), the URI and the label ids; None if it is not laid out as our records are. The embeddings
          of further views, if there are any, end where the record ends.
        """
        try:
            return self._find(data, start, end)
        except (IndexError, UnicodeDecodeError):
            return None

    def _find(self, data: bytes, start: int, end: int) -> tuple[int, bytes, bytes, str, tuple[int, ...]] | None:
        if data[start] != _FIELD_1:
            return None
        length, at = decode_varint(data, start + 1)
        if at + length != end or not data.startswith(self.before_floats, at):
            return None
        first_float = at + len(self.before_floats)
        at = first_float + self._floats_bytes
        image_hash = digest = b""
        if data.startswith(self._before_hash, at):
            at += self._hash_entry_bytes
            image_hash = data[at - HASH_BYTES : at]
        if data.startswith(self._before_digest, at):
            at += self._digest_entry_bytes
            digest = data[at - SHA256_BYTES : at]
        if at >= end or data[at] != _FIELD_1:
            return None
        length, at = decode_varint(data, at + 1)
        uri_end = at + length
        if uri_end > end or not data.startswith(self._before_uri, at):
            return None
        # Feature, BytesList and value nest, and each must end where the entry does.
        length, at = decode_varint(data, at + len(self._before_uri))
        if at + length != uri_end or data[at] != _FIELD_1:
            return None
        length, at = decode_varint(data, at + 1)
        if at + length != uri_end or data[at] != _FIELD_1:
            return None
        length, at = decode_varint(data, at + 1)
        if at + length != uri_end:
            return None
        length, at_label = decode_varint(data, uri_end + 1)
        label_end = at_label + length
        if label_end != end and not self._is_of_views(data, label_end, end):
            return None
        label_ids = self.labels_of(data[uri_end:label_end])
        return None if label_ids is None else (first_float, image_hash, digest, data[at:uri_end].decode(), label_ids)

    def _is_of_views(self, data: bytes, start: int, end: int) -> bool:
        """Whether `data[start:end]` is the entry of the embeddings of one or more further views."""
        num_bytes = end - start
        before = self._before_views.get(num_bytes)
        if before is None:
            before = self._before_views_of(num_bytes)
            if before is None:
                return False
            self._before_views[num_bytes] = before
        return data.startswith(before, start)

    def _before_views_of(self, num_bytes: int) -> bytes | None:
        """What stands before the floats in an entry of so many bytes; None if no number of further views has it."""
        # Lengths that take more bytes leave fewer for floats.
        for further_views in range(num_bytes // self._floats_bytes, 0, -1):
            of_floats = further_views * self._floats_bytes
            before = _before_values(VIEWS_FEATURE, _FLOAT_LIST, of_floats)
            if len(before) + of_floats <= num_bytes:
                return before if len(before) + of_floats == num_bytes else None
        return None

    def labels_of(self, entry: bytes) -> tuple[int, ...] | None:
        """The label ids in the entry of the labels; None if it is not one that `encode_example` makes."""
        known = self._label_entries.get(entry)
        if known is not None:
            return known
        # Rare (a set has few combinations of labels), so it may cost: read the ids where ours would stand, and
        # see whether the encoder makes the same bytes of them.
        ids = []
        length, at = decode_varint(entry, 1)
        if at + length != len(entry) or not entry.startswith(self._before_label, at):
            return None
        _, at = decode_varint(entry, at + len(self._before_label))
        length, at = decode_varint(entry, at + 1)
        if length:
            _, at = decode_varint(entry, at + 1)
            while at < len(entry):
                label_id, at = decode_varint(entry, at)
                ids.append(label_id)
        if max(ids, default=0) >= 1 << 63 or _label_entry(tuple(ids)) != entry:
            return None
        if len(self._label_entries) < _MAX_CACHED_LABELS:
            self._label_entries[entry] = tuple(ids)
        return tuple(ids)


def feature_spec(embedding_size: int, *, views: int = 1) -> dict[str, Any]:
    """The spec with which `tf.io.parse_example` reads the records.

    Args:
      embedding_size: numbers in an embedding.
      views: of the set. Records of several views can be read as those of one view, too.

    Returns:
      `image_uri`: string scalar; `embedding`: float32 [embedding_size]; `label`: int64, varying length
      (0 to n labels a record); `image_sha256` and `image_phash`: string, varying length, because records made elsewhere
      do not have them; with several views `view_embeddings`: float32 [views - 1, embedding_size].
    """
    import tensorflow as tf

    of_views = {} if views == 1 else {VIEWS_FEATURE: tf.io.FixedLenFeature([views - 1, embedding_size], tf.float32)}
    return {
        **of_views,
        URI_FEATURE: tf.io.FixedLenFeature([], tf.string),
        EMBEDDING_FEATURE: tf.io.FixedLenFeature([embedding_size], tf.float32),
        LABEL_FEATURE: tf.io.RaggedFeature(tf.int64),
        SHA256_FEATURE: tf.io.RaggedFeature(tf.string),
        HASH_FEATURE: tf.io.RaggedFeature(tf.string),
    }
