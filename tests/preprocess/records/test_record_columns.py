import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.records.example import RecordLayout, encode_example
from preprocess.records.record_columns import ColumnReader


def examples(size, uris, labels, *, digest=True, image_hash=False):
    source = random.Random(0)
    return [
        encode_example(
            image_uri=uri,
            embedding=np.random.RandomState(number).rand(size).astype(np.float32),
            label_ids=ids,
            image_sha256=source.randbytes(32) if digest else b"",
            image_hash=source.randbytes(32) if image_hash else b"",
        )
        for number, (uri, ids) in enumerate(zip(uris, labels, strict=True))
    ]


def joined(records):
    data, spans = b"", []
    for record in records:
        start = len(data) + 3
        data += b"..." + record + b"......"
        spans.append((start, start + len(record)))
    return data, spans


def one_by_one(layout, size, data, spans):
    found = [layout.find(data, start, end) for start, end in spans]
    if any(one is None or not one[2] for one in found):
        return None
    floats = [np.frombuffer(data, "<f4", size, one[0]) for one in found]
    return [
        (uri, row.tobytes(), hashed or bytes(32), digest, ids)
        for row, (_, hashed, digest, uri, ids) in zip(floats, found, strict=True)
    ]


def at_once(layout, size, data, spans):
    columns = ColumnReader(layout, size).read(data, spans)
    if columns is None:
        return None
    assert columns.embeddings.dtype == np.dtype("<f4") and columns.embeddings.shape == (len(spans), size)
    parts = zip(columns.uris, columns.embeddings, columns.hashes, columns.digests, columns.label_ids, strict=True)
    return [(uri, row.tobytes(), hashed.tobytes(), digest.tobytes(), ids) for uri, row, hashed, digest, ids in parts]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 16, 300]),
    st.lists(
        st.tuples(st.integers(0, 300), st.lists(st.integers(0, 1 << 40), max_size=40).map(tuple)),
        min_size=1,
        max_size=8,
    ),
)
def test_records_together_are_those_one_by_one(size, rows):
    records = examples(size, ["ü" * (length // 2) + "x" * (length % 2) for length, _ in rows], [ids for _, ids in rows])
    layout = RecordLayout(size)
    data, spans = joined(records)
    found = at_once(layout, size, data, spans)
    assert found in (None, one_by_one(layout, size, data, spans))
    # Only where the length of one record takes more bytes than that of another are they not read together.
    if len({len(record) >= 1 << 7 for record in records}) == len({len(record) >= 1 << 14 for record in records}) == 1:
        assert found is not None or min(map(len, records)) < 140


@pytest.mark.parametrize("image_hash", [False, True])
@pytest.mark.parametrize("length", [0, 60, 96, 97, 98, 99, 100, 108, 109, 110, 111, 112, 113, 114, 127, 128, 500, 2047])
def test_uris_of_each_length_are_read(length, image_hash):
    data, spans = joined(examples(16, ["u" * length, "v" * length], [(1,), ()], image_hash=image_hash))
    layout = RecordLayout(16)
    assert at_once(layout, 16, data, spans) == one_by_one(layout, 16, data, spans) is not None


def test_a_changed_byte_is_never_read_as_something_else():
    size, layout = 2, RecordLayout(2)
    records = examples(size, ["gs://bucket/a.jpg", "gs://bucket/other/b.jpg", "c"], [(1,), (), (3, 200)])
    data, spans = joined(records)
    changed = 0
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            other = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            found = at_once(layout, size, other, spans)
            changed += found is None
            assert found in (None, one_by_one(layout, size, other, spans))
    assert changed > 100


@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_records_that_end_early_are_not_read(cut):
    (record,) = examples(2, ["gs://bucket/a.jpg"], [(1,)])
    assert ColumnReader(RecordLayout(2), 2).read(record[:cut], [(0, cut)]) is None
    assert ColumnReader(RecordLayout(2), 2).read(record, []) is None


def test_records_without_a_digest_and_long_uris_are_left_to_the_layout():
    some = examples(2, ["a"], [()], image_hash=True) + examples(2, ["b"], [()])
    for records in (examples(2, ["a"], [()], digest=False), examples(2, ["u" * 5000], [()]), some):
        data, spans = joined(records)
        assert ColumnReader(RecordLayout(2), 2).read(data, spans) is None
