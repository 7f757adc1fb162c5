"""The record parser: turns the bytes of a TFRecord file into arrays, without a protobuf object for each record.

It recognizes the byte layout that `records.example.encode_example` writes (`records.example.RecordLayout`), and then
copies each embedding once. Protocol buffers allow other orders and encodings of the same record; such records go
through `tf.io.parse_example`. The other views of an image, if its set has some, are the last feature of a record.

The CRCs of the container are not checked. They would detect damage on disk, but every reader of shards already checks
the SHA-256 of the whole shard, which detects all damage.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from preprocess.records.duplicates import DIGEST_BYTES
from preprocess.records.example import (
    EMBEDDING_FEATURE,
    HASH_BYTES,
    HASH_FEATURE,
    LABEL_FEATURE,
    SHA256_BYTES,
    SHA256_FEATURE,
    URI_FEATURE,
    VIEWS_FEATURE,
    RecordLayout,
    feature_spec,
)
from preprocess.records.record_columns import ColumnReader
from preprocess.records.tfrecord import MalformedRecordError
from trainer.data.view_records import ViewsLayout

_NO_DIGEST = bytes(DIGEST_BYTES)
_NO_HASH = bytes(HASH_BYTES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Consecutive records.

    Attributes:
      uris: n strings.
      views: float32, shape [n, number of views, embedding_size]. View 0 is that of the undistorted image.
      label_ids: int64, the label ids of all records, one record after the other.
      label_counts: int64, shape [n]: how many labels each record has.
      image_digests: uint8, shape [n, 16]: the first bytes of the SHA-256 of each image file; 0 if it is not known.
      image_hashes: uint8, shape [n, 32]: the perceptual hash of each image; 0 if it is not known.
    """

    uris: list[str]
    views: np.ndarray
    label_ids: np.ndarray
    label_counts: np.ndarray
    image_digests: np.ndarray
    image_hashes: np.ndarray

    @property
    def embeddings(self) -> np.ndarray:
        """float32, shape [n, embedding_size]: view 0 of each image."""
        return self.views[:, 0]

    def __len__(self) -> int:
        return len(self.uris)


class RecordParser:
    """Parses records of one embedding size and one number of views."""

    def __init__(self, embedding_size: int, *, stored_views: int = 1, all_views: bool = False):
        """Takes the size of the records.

        Args:
          embedding_size: floats in one embedding.
          stored_views: how many views of an image a record has.
          all_views: whether to read all views; else only view 0 is read.
        """
        self._size = embedding_size
        self._views = stored_views if all_views else 1
        self._layout = RecordLayout(embedding_size)
        self._columns = ColumnReader(self._layout, embedding_size)
        self._views_layout = ViewsLayout((stored_views - 1) * embedding_size) if stored_views > 1 else None

    def parse(self, data: bytes, spans: list[tuple[int, int]]) -> Records:
        """Parses the records at the given positions.

        Raises:
          MalformedRecordError: a record is not an example with a URI, an embedding of this size, labels, and as many
            views as its set has.
        """
        columns = self._columns.read(data, spans) if self._views_layout is None else None
        if columns is not None:
            return Records(
                uris=columns.uris,
                views=columns.embeddings[:, np.newaxis],
                label_ids=np.array(list(itertools.chain.from_iterable(columns.label_ids)), np.int64),
                label_counts=np.array([len(ids) for ids in columns.label_ids], np.int64),
                image_digests=np.ascontiguousarray(columns.digests[:, :DIGEST_BYTES]),
                image_hashes=columns.hashes,
            )
        views = np.empty((len(spans), self._views, self._size), np.float32)
        embeddings = views[:, 0]
        uris: list[str] = []
        ids: list[int] = []
        counts: list[int] = []
        digests: list[bytes] = []
        hashes: list[bytes] = []
        for row, (start, end) in enumerate(spans):
            record = data
            if self._views_layout is None:
                found = self._layout.find(data, start, end)
            else:
                record, first_view = self._views_layout.split(data, start, end)
                found = self._layout.find(record, 0, len(record))
            if found is None:
                return self._any_layout([data[start:end] for start, end in spans])
            first_float, image_hash, digest, uri, label_ids = found
            embeddings[row] = np.frombuffer(record, "<f4", self._size, first_float)
            if self._views > 1:
                others = np.frombuffer(data, "<f4", (self._views - 1) * self._size, first_view)
                views[row, 1:] = others.reshape(-1, self._size)
            uris.append(uri)
            ids.extend(label_ids)
            counts.append(len(label_ids))
            digests.append(digest[:DIGEST_BYTES] or _NO_DIGEST)
            hashes.append(image_hash or _NO_HASH)
        return Records(
            uris=uris,
            views=views,
            label_ids=np.array(ids, np.int64),
            label_counts=np.array(counts, np.int64),
            image_digests=_as_array(digests, DIGEST_BYTES),
            image_hashes=_as_array(hashes, HASH_BYTES),
        )

    def _any_layout(self, records: list[bytes]) -> Records:
        import tensorflow as tf  # here: a program that reads our own records needs none of it

        try:
            parsed = tf.io.parse_example(tf.constant(records, tf.string), feature_spec(self._size, views=self._views))
        except UnicodeDecodeError as error:  # TensorFlow fails to decode the record for its message.
            raise MalformedRecordError("a record is not a tf.Example") from error
        except tf.errors.OpError as error:
            lines = (line.replace("{{function_node", "").strip() for line in str(error.message).splitlines())
            raise MalformedRecordError(next((line for line in lines if line), type(error).__name__)[:200]) from error
        labels = parsed[LABEL_FEATURE]
        views = parsed[EMBEDDING_FEATURE].numpy()[:, np.newaxis]
        if self._views > 1:
            views = np.concatenate([views, parsed[VIEWS_FEATURE].numpy()], axis=1)
        digests = [
            found[0][:DIGEST_BYTES] if len(found) == 1 and len(found[0]) == SHA256_BYTES else _NO_DIGEST
            for found in parsed[SHA256_FEATURE].to_list()
        ]
        hashes = [
            found[0] if len(found) == 1 and len(found[0]) == HASH_BYTES else _NO_HASH
            for found in parsed[HASH_FEATURE].to_list()
        ]
        return Records(
            uris=[uri.decode("utf-8", "replace") for uri in parsed[URI_FEATURE].numpy()],
            views=views,
            label_ids=labels.values.numpy(),
            label_counts=labels.row_lengths().numpy().astype(np.int64),
            image_digests=_as_array(digests, DIGEST_BYTES),
            image_hashes=_as_array(hashes, HASH_BYTES),
        )


def _as_array(values: list[bytes], num_bytes: int) -> np.ndarray:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, num_bytes)
