"""Records as bytes: what was written comes back, and bytes that nobody wrote are refused or read, never a crash."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from preprocess.records.example import encode_example
from preprocess.records.tfrecord import MalformedRecordError, frame_record, split_frames
from trainer.data.record_parser import RecordParser, Records

# The same examples in every run.
steady = settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

SIZE = 3
PARSER = RecordParser(SIZE)

_uris = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
_label_ids = st.lists(st.integers(0, 300) | st.integers(0, 2**63 - 1), max_size=6)
_floats = st.floats(width=32)
_records = st.tuples(_uris, st.lists(_floats, min_size=SIZE, max_size=SIZE), _label_ids)


def encode(uri, embedding, label_ids):
    return encode_example(image_uri=uri, embedding=np.array(embedding, np.float32), label_ids=label_ids)


def parse(contents: bytes, *, chunk_bytes: int = 1 << 20, parser: RecordParser = PARSER) -> list[Records]:
    starts = range(0, len(contents), chunk_bytes)
    chunks = (contents[start : start + chunk_bytes] for start in starts)
    return [parser.parse(data, spans) for data, spans in split_frames(chunks)]


def read_or_refuse(contents: bytes) -> None:
    try:
        parts = parse(contents)
    except MalformedRecordError as error:
        assert len(str(error).splitlines()) == 1
        return
    for records in parts:
        assert len(records) > 0
        assert all(isinstance(uri, str) for uri in records.uris)
        assert (records.embeddings.shape, records.embeddings.dtype) == ((len(records), SIZE), np.float32)
        assert (records.label_counts.shape, records.label_counts.dtype) == ((len(records),), np.int64)
        assert (records.label_ids.shape, records.label_ids.dtype) == ((records.label_counts.sum(),), np.int64)


@steady
@given(st.lists(_records, max_size=6), st.integers(1, 3000))
def test_records_come_back_whatever_pieces_they_are_read_in(written, chunk_bytes):
    found = parse(b"".join(frame_record(encode(*record)) for record in written), chunk_bytes=chunk_bytes)
    assert [uri for records in found for uri in records.uris] == [uri for uri, _, _ in written]
    embeddings = np.concatenate([np.empty((0, SIZE), np.float32), *(records.embeddings for records in found)])
    # Bit for bit: NaN and -0.0 too.
    expected = np.array([embedding for _, embedding, _ in written], np.float32).reshape(-1, SIZE)
    assert embeddings.tobytes() == expected.tobytes()
    label_ids = [label_id for records in found for label_id in records.label_ids.tolist()]
    assert label_ids == [label_id for _, _, label_ids in written for label_id in label_ids]
    counts = [count for records in found for count in records.label_counts.tolist()]
    assert counts == [len(label_ids) for _, _, label_ids in written]


@steady
@given(st.integers(1, 5000), _uris, _label_ids)
def test_embeddings_of_any_size_come_back(size, uri, label_ids):
    embedding = np.arange(size, dtype=np.float32)
    record = frame_record(encode_example(image_uri=uri, embedding=embedding, label_ids=label_ids))
    (records,) = parse(record, parser=RecordParser(size))
    assert (records.uris, records.label_ids.tolist()) == ([uri], label_ids)
    np.testing.assert_array_equal(records.embeddings, [embedding])


@steady
@given(st.integers(0, 6).filter(lambda size: size != SIZE), _uris)
def test_embeddings_of_another_size_are_refused(size, uri):
    record = encode_example(image_uri=uri, embedding=np.ones(size, np.float32), label_ids=[1])
    try:
        parse(frame_record(record))
    except MalformedRecordError:
        return
    raise AssertionError("it was read")


@steady
@given(st.binary(max_size=100), st.integers(1, 50))
@example(b"\xff" * 30, 7)
@example(bytes(16), 16)
def test_any_bytes_are_cut_into_records_or_refused(contents, chunk_bytes):
    chunks = (contents[start : start + chunk_bytes] for start in range(0, len(contents), chunk_bytes))
    try:
        pieces = list(split_frames(chunks))
    except MalformedRecordError:
        return
    # Every byte is in a record or in its frame of 16 bytes.
    assert sum(end - start + 16 for _, spans in pieces for start, end in spans) == len(contents)
    assert all(12 <= start <= end <= len(data) - 4 for data, spans in pieces for start, end in spans)


@steady
@given(st.lists(st.binary(max_size=60), max_size=3))
@example([b""])
def test_any_records_are_read_or_refused(records):
    read_or_refuse(b"".join(map(frame_record, records)))


@st.composite
def _mutated_records(draw):
    changed = bytearray(encode(*draw(_records)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(changed)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "varint"]))
        if kind == "flip" and place < len(changed):
            changed[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del changed[place:]
        elif kind == "insert":
            changed[place:place] = draw(st.binary(max_size=4))
        elif kind == "remove":
            del changed[place : place + draw(st.integers(1, 4))]
        elif kind == "varint":  # lengths beyond all bounds
            changed[place : place + 1] = b"\xff" * draw(st.integers(1, 12)) + b"\x01"
    return bytes(changed)


@settings(steady, max_examples=500)
@given(_mutated_records(), st.lists(_records, max_size=2))
def test_a_mutated_record_among_sound_ones_is_read_or_refused(mutated, sound):
    read_or_refuse(b"".join(frame_record(record) for record in [*(encode(*one) for one in sound), mutated]))
