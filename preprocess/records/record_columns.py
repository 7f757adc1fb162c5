"""Reads many records at once: NumPy compares and copies the same part of all of them.

Records that `encode_example` made differ in few places: the lengths of the URI and of the labels. So the positions of
their parts are computed for all records of a piece together. That takes a third of the time of reading one record
after the other, as `RecordLayout` does, which stays the judge of all records that are laid out in another way.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from preprocess.records.example import (
    HASH_BYTES,
    HASH_FEATURE,
    SHA256_BYTES,
    SHA256_FEATURE,
    URI_FEATURE,
    RecordLayout,
    bytes_entry,
)
from preprocess.records.wire_format import encode_varint, field_tag

_FIELD_1 = field_tag(1)[0]
# URIs with more bytes are read by `RecordLayout`.
_MAX_URI_BYTES = 2048


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RecordColumns:
    """The parts of n records.

    Attributes:
      uris: of the images.
      embeddings: float32 [n, embedding_size].
      digests: uint8 [n, 32], SHA-256 of the image files.
      hashes: uint8 [n, 32], perceptual hashes of the images; 0 for records without one.
      label_ids: of each record.
    """

    uris: list[str]
    embeddings: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    label_ids: list[tuple[int, ...]]


@functools.cache
def _uri_headers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What stands before the URI in its entry, by the bytes of the URI: the bytes, padded, and how many they are.

    The third array gives the bytes of the URI by those of the entry after its length; -1 if no URI makes such an entry.
    """
    heads = [bytes_entry(URI_FEATURE, bytes(size))[: -size or None] for size in range(_MAX_URI_BYTES)]
    lengths = np.array([len(head) for head in heads])
    padded = np.zeros((len(heads), lengths.max()), np.uint8)
    for size, head in enumerate(heads):
        padded[size, : len(head)] = np.frombuffer(head, np.uint8)
    sizes = np.full(1 << 14, -1)
    for size, head in enumerate(heads):
        after_tag = len(head) + size - 1
        sizes[after_tag - (1 if after_tag <= 0x80 else 2)] = size
    return padded, lengths, sizes


class ColumnReader:
    """Reads the records of one embedding size that have a digest and one view.

    Args:
      layout: of these records; it reads their labels.
      embedding_size: floats in one embedding.
    """

    def __init__(self, layout: RecordLayout, embedding_size: int):
        self._layout = layout
        self._floats_bytes = 4 * embedding_size
        self._before_floats = np.frombuffer(layout.before_floats, np.uint8)
        self._before_hash = bytes_entry(HASH_FEATURE, bytes(HASH_BYTES))[:-HASH_BYTES]
        self._before_digest = np.frombuffer(bytes_entry(SHA256_FEATURE, bytes(SHA256_BYTES))[:-SHA256_BYTES], np.uint8)

    def read(self, data: bytes, spans: list[tuple[int, int]]) -> RecordColumns | None:
        """Reads the records at some positions; None if one of them is laid out in another way."""
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        starts, ends = bounds[:, 0], bounds[:, 1]
        content = np.frombuffer(data, np.uint8)
        head = 1 + len(encode_varint(int((ends - starts).max(initial=0))))
        heads, head_bytes, uri_bytes_of = _uri_headers()
        # Records of one set are of one kind: all have a hash, or none has one.
        to_hash = head + len(self._before_floats) + self._floats_bytes
        has_hash = bool(spans) and data.startswith(self._before_hash, spans[0][0] + to_hash)
        hash_bytes = len(self._before_hash) + HASH_BYTES if has_hash else 0
        fixed = to_hash - head + hash_bytes + len(self._before_digest) + SHA256_BYTES
        uri_entries = starts + head + fixed
        if not len(starts) or (uri_entries + heads.shape[1] > ends).any():
            return None
        at = starts
        if not _is_each(content, at, _length_heads(ends - starts - head, head)):
            return None
        at = at + head
        if not _is_each(content, at, self._before_floats):
            return None
        at = at + len(self._before_floats)
        floats = _parts(content, at, self._floats_bytes)
        at = at + self._floats_bytes
        hashes = np.zeros((len(starts), HASH_BYTES), np.uint8)
        if has_hash:
            if not _is_each(content, at, np.frombuffer(self._before_hash, np.uint8)):
                return None
            hashes = _parts(content, at + len(self._before_hash), HASH_BYTES)
        at = at + hash_bytes
        if not _is_each(content, at, self._before_digest):
            return None
        digests = _parts(content, at + len(self._before_digest), SHA256_BYTES)
        # The length of the entry of the URI is one or two bytes.
        low, high = content[uri_entries + 1].astype(np.int64), content[uri_entries + 2].astype(np.int64)
        is_long = low >= 0x80
        entry_bytes = np.where(is_long, low & 0x7F | (high & 0x7F) << 7, low)
        uri_bytes = uri_bytes_of[entry_bytes]
        if (uri_bytes < 0).any():
            return None
        expected, known = heads[uri_bytes], head_bytes[uri_bytes]
        found = _parts(content, uri_entries, heads.shape[1])
        if ((found != expected) & (np.arange(heads.shape[1]) < known[:, np.newaxis])).any():
            return None
        uri_starts = uri_entries + known
        uri_ends = uri_starts + uri_bytes
        if (uri_ends >= ends).any():
            return None
        try:
            uris = [data[a:b].decode() for a, b in zip(uri_starts.tolist(), uri_ends.tolist(), strict=True)]
            labels = [self._layout.labels_of(data[a:b]) for a, b in zip(uri_ends.tolist(), ends.tolist(), strict=True)]
        except (UnicodeDecodeError, IndexError):
            return None
        if None in labels:
            return None
        return RecordColumns(uris, floats.view("<f4"), digests, hashes, labels)  # type: ignore[arg-type]


def _parts(content: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """The bytes from some positions on: uint8 [n, size], a copy."""
    return np.lib.stride_tricks.sliding_window_view(content, size)[starts]


def _is_each(content: np.ndarray, starts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether these bytes, uint8 [size] or [n, size], stand at each of the positions."""
    return bool((_parts(content, starts, expected.shape[-1]) == expected).all())


def _length_heads(lengths: np.ndarray, size: int) -> np.ndarray:
    """What a record begins with, for each of the lengths of its features: uint8 [n, size], with the bytes of the tag.

    A length that takes fewer bytes gives bytes that no record begins with.
    """
    heads = np.empty((len(lengths), size), np.uint8)
    heads[:, 0] = _FIELD_1
    for number in range(size - 1):
        is_last = number == size - 2
        heads[:, 1 + number] = (lengths >> 7 * number) & 0x7F | (0 if is_last else 0x80)
    if size > 2:
        heads[lengths < 1 << 7 * (size - 2), 0] = 0
    return heads
