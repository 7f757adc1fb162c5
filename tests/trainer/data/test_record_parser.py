from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.records.example import decode_example, encode_example
from preprocess.records.tfrecord import MalformedRecordError, frame_record, split_frames
from trainer.data.record_parser import RecordParser

PARSER = RecordParser(3)
EMBEDDING = np.array([1.5, -2, 3e9], np.float32)


def parse(*records: bytes, chunk: int = 7, parser: RecordParser = PARSER):
    contents = b"".join(map(frame_record, records))
    chunks = (contents[start : start + chunk] for start in range(0, len(contents), chunk))
    return [parser.parse(data, spans) for data, spans in split_frames(chunks)]


def foreign_example(uri: bytes, label_ids: list[int]) -> bytes:
    """The same record as TensorFlow's own library writes it: in another order and with an empty list in place."""
    feature = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=label_ids)),
        "image_uri": tf.train.Feature(bytes_list=tf.train.BytesList(value=[uri])),
        "more": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=EMBEDDING)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.lists(st.integers(0, 1 << 40), max_size=60), st.integers(1, 300))
def test_our_own_records_are_read_by_their_bytes(uri, label_ids, size):
    embedding = np.arange(size, dtype=np.float32)
    parser = RecordParser(size)
    parser._any_layout = None  # type: ignore[assignment,method-assign]  # It must not be needed.
    (records,) = parse(
        encode_example(image_uri=uri, embedding=embedding, label_ids=label_ids), chunk=1 << 20, parser=parser
    )
    assert records.uris == [uri]
    np.testing.assert_array_equal(records.embeddings, [embedding])
    assert records.label_ids.tolist() == label_ids
    assert records.label_counts.tolist() == [len(label_ids)]


def test_pieces_may_end_anywhere():
    written = [encode_example(image_uri=f"{i}", embedding=EMBEDDING + i, label_ids=[i] * i) for i in range(5)]
    for chunk in (1, 13, 64, 1000):
        found = parse(*written, chunk=chunk)
        assert [uri for records in found for uri in records.uris] == list("01234")
        np.testing.assert_array_equal(
            np.concatenate([records.embeddings for records in found]), [EMBEDDING + i for i in range(5)]
        )


@pytest.mark.parametrize("label_ids", [[], [3], [1, 300]])
def test_other_layouts_are_read_too(label_ids):
    ours = encode_example(image_uri="a", embedding=EMBEDDING, label_ids=[2])
    (records,) = parse(ours, foreign_example(b"b", label_ids), chunk=1 << 20)
    assert records.uris == ["a", "b"]
    np.testing.assert_array_equal(records.embeddings, [EMBEDDING, EMBEDDING])
    assert records.label_ids.tolist() == [2, *label_ids]
    assert records.label_counts.tolist() == [1, len(label_ids)]


def test_a_changed_byte_is_refused_or_read_as_tensorflow_reads_it():
    """Whatever byte of the structure is changed: the record is refused, or read as TensorFlow reads it."""
    ours = encode_example(image_uri="ab", embedding=EMBEDDING, label_ids=[2, 1])
    spec = {"label": tf.io.RaggedFeature(tf.int64), "image_uri": tf.io.FixedLenFeature([], tf.string)}
    for place in range(len(ours)):
        changed = bytearray(ours)
        changed[place] ^= 0x08
        try:
            (records,) = parse(bytes(changed), chunk=1 << 20)
        except MalformedRecordError:
            continue
        expected = tf.io.parse_example([bytes(changed)], spec)
        assert records.uris == [expected["image_uri"].numpy()[0].decode("utf-8", "replace")]
        assert records.label_ids.tolist() == expected["label"].values.numpy().tolist()


@pytest.mark.parametrize("contents", [b"\x01", frame_record(b"abc")[:-1], b"\xff" * 30])
def test_what_is_no_tfrecord_file(contents):
    with pytest.raises(MalformedRecordError):
        list(split_frames(iter([contents])))


@pytest.mark.parametrize("ours", [True, False])
def test_the_digest_of_the_image_is_read_from_every_layout(ours):
    digest = bytes(range(32))
    written = [
        encode_example(image_uri="a", embedding=EMBEDDING, label_ids=[1], image_sha256=digest),
        encode_example(image_uri="b", embedding=EMBEDDING, label_ids=[1]),
    ]
    if not ours:
        written.append(foreign_example(b"c", [1]))  # One of another layout: all of its piece are read by TensorFlow.
    (records,) = parse(*written, chunk=1 << 20)
    assert records.image_digests.dtype == np.uint8
    assert records.image_digests[0].tobytes() == digest[:16]
    assert not records.image_digests[1:].any()


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("views", [1, 3])
def test_the_hash_of_the_image_is_read_from_every_layout(ours, views):
    image_hash, digest = bytes(range(100, 132)), bytes(range(32))
    others = np.arange(3 * (views - 1), dtype=np.float32).reshape(views - 1, 3) if views > 1 else None
    kinds = [
        {},
        {"image_hash": image_hash},
        {"image_sha256": digest},
        {"image_hash": image_hash, "image_sha256": digest},
    ]
    written = [
        encode_example(image_uri=str(row), embedding=EMBEDDING + row, label_ids=[row], view_embeddings=others, **kind)
        for row, kind in enumerate(kinds)
    ]
    if not ours:
        # The same features in another order, so all of the piece are read by TensorFlow.
        example = tf.train.Example.FromString(written[-1])
        entries = sorted(example.features.feature.items(), reverse=True)
        last = b"".join(
            tf.train.Features(feature={name: feature}).SerializeToString(deterministic=True)
            for name, feature in entries
        )
        written[-1] = b"\x0a" + _varint(len(last)) + last
    parser = RecordParser(3, stored_views=views, all_views=True)
    if ours:
        parser._any_layout = None  # type: ignore[assignment,method-assign]  # It must not be needed.
    (records,) = parse(*written, chunk=1 << 20, parser=parser)
    assert records.image_hashes.dtype == np.uint8
    assert [found.tobytes() for found in records.image_hashes] == [bytes(32), image_hash, bytes(32), image_hash]
    assert [found.tobytes() for found in records.image_digests] == [bytes(16)] * 2 + [digest[:16]] * 2
    assert records.views.shape == (4, views, 3)
    np.testing.assert_array_equal(records.embeddings, [EMBEDDING + row for row in range(4)])
    for row, kind in enumerate(kinds):
        decoded = decode_example(written[row])
        assert decoded.image_hash == kind.get("image_hash", b"")
        assert decoded.image_sha256 == kind.get("image_sha256", b"")


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7]) if number > 0x7F else bytes([number])
