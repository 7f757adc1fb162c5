"""Whatever bytes a user brings: a result of the promised kind, or the promised exception."""

import csv
import io
import json
import typing

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from preprocess.images.decode import IMAGE_SIZE, ImageError, ImageErrorReason, decode_image
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict, parse_label_dict
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import parse_rows
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import decode_example, encode_example
from preprocess.records.record_set import Manifest, Shard
from preprocess.records.tfrecord import frame_record, whole_records
from tests.support.image_corpus import encode, photo

# Pillow warns of damaged files; pytest undoes the filter that preprocess.images.decode sets.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# The same examples in every run.
steady = settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
steady_images = settings(steady, max_examples=40)

LABELS = LabelDict(("daisy", "rose", "été"))
LIST_PATH = "lists/train.csv"


def one_line(error):
    """What the error says, which is one line."""
    message = str(error.value if isinstance(error, pytest.ExceptionInfo) else error)
    assert len(message.splitlines()) == 1, message
    return message


# Lists.

# Text has no lone surrogates, since no UTF-8 file has.
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_cell = st.one_of(_text, st.sampled_from([*LABELS.names, "", " ", "a.jpg", '"', "\r", "\n", "\0", "image_uri"]))
_unknown_labels = st.sampled_from(["fail", "skip", "unlabeled"])


def parse(raw, unknown_labels):
    return list(parse_rows(io.BytesIO(raw), list_path=LIST_PATH, labels=LABELS, unknown_labels=unknown_labels))


def check_rows(rows):
    """Every row is exactly once among records, failures and skips, and whole."""
    embedded = [row for row in rows if row.outcome is None]
    failed = [row for row in rows if isinstance(row.outcome, RowFailure)]
    skipped = [row for row in rows if isinstance(row.outcome, RowSkip)]
    assert len(embedded) + len(failed) + len(skipped) == len(rows)
    assert all(row.uri and set(row.label_ids) <= set(LABELS.ids.values()) for row in embedded)
    assert all(len(row.outcome.message.splitlines()) == 1 for row in [*failed, *skipped])
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    blocks = into_blocks(rows, list_index=0, list_path=LIST_PATH, rows_per_block=3)
    assert [row for block in blocks for row in block.rows] == rows


@steady
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.sampled_from(['"', ",", "\n", "\r", " ", "\0", "a", "rose", "\ufeff", "\x85", "\u2028"])).map(
            lambda pieces: "".join(pieces).encode()
        ),
    ),
    _unknown_labels,
)
def test_any_bytes_are_rows_or_one_line(raw, unknown_labels):
    try:
        rows = parse(raw, unknown_labels)
    except InputError as error:
        assert one_line(error).startswith(f"{LIST_PATH}:")
    else:
        check_rows(rows)
        # The job reads a list twice, and the counts must agree.
        assert [repr(row) for row in parse(raw, unknown_labels)] == [repr(row) for row in rows]
        # csv's own count of the rows, of lines that this file splits as the csv module asks.
        assert len(rows) == sum(1 for _ in csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))


@steady
@given(
    st.lists(st.lists(_cell, min_size=1, max_size=4), max_size=8),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    _unknown_labels,
)
def test_a_written_list_comes_back_as_given(table, quoting, unknown_labels):
    text = io.StringIO()
    csv.writer(text, quoting=quoting).writerows(table)
    try:
        rows = parse(text.getvalue().encode("utf-8-sig"), unknown_labels)
    except InputError as error:
        assert unknown_labels == "fail"
        assert "is not in the dictionary" in one_line(error)
        return
    check_rows(rows)
    assert len(rows) == len(table)
    for cells, row in zip(table, rows, strict=True):
        uri, *names = (cell.strip() for cell in cells)
        assert row.uri == uri
        assert row.labels == tuple(dict.fromkeys(filter(None, names)))
        if row.outcome is None:
            assert row.label_ids == tuple(LABELS.ids[name] for name in row.labels if name in LABELS.ids)


# Dictionaries.


@steady
@given(st.one_of(st.binary(max_size=100), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_a_label_dictionary_or_one_line(raw):
    try:
        labels = parse_label_dict(raw, where="dict.txt")
    except InputError as error:
        assert one_line(error).startswith("dict.txt:")
    else:
        assert len(labels) == len(labels.ids) > 0
        assert all(name and name == name.strip() for name in labels.names)
        again = parse_label_dict("\n".join(labels.names).encode(), where="dict.txt")
        assert again == labels


# Manifests.

_counts = st.integers(0, 10**9)
_names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_backbones = st.builds(
    BackboneIdentity,
    architecture=_names,
    weights=_names,
    seed=st.none() | _counts,
    weights_digest=_names,
    embedding_size=_counts,
    image_definition=_names,
)
_file_names = _names.filter(lambda name: name not in ("", ".", "..") and not {"/", "\0"} & set(name))
_shards = st.builds(Shard, name=_file_names, records=_counts, num_bytes=_counts, sha256=_names)


@st.composite
def _manifests(draw):
    shards = tuple(draw(st.lists(_shards, max_size=4, unique_by=lambda shard: shard.name)))
    return Manifest(
        backbone=draw(_backbones),
        labels=tuple(draw(st.lists(_names, max_size=4))),
        compression=draw(st.sampled_from(["none", "gzip"])),
        records=sum(shard.records for shard in shards),
        shards=shards,
    )


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)


def read_manifest(raw):
    try:
        manifest = Manifest.from_bytes(raw, where="m.json")
    except InputError as error:
        assert one_line(error).startswith("m.json: ")
    else:
        assert manifest.compression in ("none", "gzip")
        assert manifest.records == sum(shard.records for shard in manifest.shards)
        # What was read can be written.
        assert Manifest.from_bytes(manifest.to_bytes(), where="m.json") == manifest


def places(value, path=()):
    """The paths of everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@steady
@given(_manifests())
def test_a_manifest_comes_back(manifest):
    assert Manifest.from_bytes(manifest.to_bytes(), where="m.json") == manifest


@settings(steady, max_examples=400)
@given(_manifests(), st.data())
def test_a_manifest_with_another_value_somewhere_is_read_or_refused(manifest, data):
    content = json.loads(manifest.to_bytes())
    path = data.draw(st.sampled_from(list(places(content))[1:]))
    *above, last = path
    holder = content
    for key in above:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[last] = data.draw(_json_values)
    else:
        del holder[last]
    read_manifest(json.dumps(content).encode())


@steady
@given(_manifests(), st.integers(0, 2000), st.binary(max_size=3))
def test_a_manifest_with_other_bytes_somewhere_is_read_or_refused(manifest, place, others):
    raw = manifest.to_bytes()
    read_manifest(raw[:place] + others + raw[place + 1 :])


@steady
@given(st.binary(max_size=50) | _json_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 2000)
@example(b"9" * 5000)
def test_any_bytes_are_a_manifest_or_one_line(raw):
    read_manifest(raw)


# Records.


@steady
@given(
    uri=_names,
    size=st.integers(0, 40),
    label_ids=st.lists(st.integers(0, 2**63 - 1), max_size=5),
    image_sha256=st.sampled_from([b"", bytes(range(32))]),
)
def test_a_record_comes_back(uri, size, label_ids, image_sha256):
    embedding = np.arange(size, dtype=np.float32)
    data = encode_example(image_uri=uri, embedding=embedding, label_ids=label_ids, image_sha256=image_sha256)
    found = decode_example(data)
    assert (found.image_uri, found.image_sha256) == (uri, image_sha256)
    np.testing.assert_array_equal(found.embedding, embedding)


_SOME_RECORD = encode_example(image_uri="é.jpg", embedding=np.ones(3, np.float32), label_ids=[1, 300])


@steady
@given(st.binary(max_size=60), st.integers(0, len(_SOME_RECORD)), st.integers(0, 20))
def test_any_bytes_are_a_record_or_a_value_error(others, place, cut):
    for data in (others, _SOME_RECORD[:place] + others + _SOME_RECORD[place + cut :]):
        try:
            found = decode_example(data)
        except ValueError:
            continue
        assert isinstance(found.image_uri, str)
        assert found.embedding.dtype == np.float32
        assert isinstance(found.image_sha256, bytes)


@steady
@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_what_is_left_of_a_file_is_its_first_whole_records(records, data):
    contents = b"".join(map(frame_record, records))
    assert list(whole_records(contents)) == records
    left = list(whole_records(contents[: data.draw(st.integers(0, len(contents)))]))
    assert left == records[: len(left)]
    if contents:
        damaged = bytearray(contents)
        damaged[data.draw(st.integers(0, len(contents) - 1))] ^= data.draw(st.integers(1, 255))
        left = list(whole_records(bytes(damaged)))
        assert len(left) < len(records)
        assert left == records[: len(left)]


@steady
@given(st.binary(max_size=100))
def test_any_bytes_hold_some_whole_records(raw):
    contents = b"".join(map(frame_record, whole_records(raw)))
    assert raw.startswith(contents)


# Images.

_IMAGES = {
    "jpeg": encode(photo(40, 30), "JPEG"),
    "progressive jpeg": encode(photo(40, 30), "JPEG", progressive=True),
    "cmyk jpeg": encode(photo(24, 16, "CMYK"), "JPEG"),
    "png": encode(photo(20, 30), "PNG"),
    "png with alpha": encode(photo(20, 30, "RGBA"), "PNG"),
    "png of 16 bits": encode(photo(20, 30, "I;16"), "PNG"),
    "gif": encode(photo(20, 30).quantize(16), "GIF", save_all=True, append_images=[photo(20, 30).quantize(8)]),
    "webp": encode(photo(20, 30), "WEBP"),
    "lossless webp": encode(photo(20, 30, "RGBA"), "WEBP", lossless=True),
    "bmp": encode(photo(20, 30), "BMP"),
    "tiff": encode(photo(20, 30), "TIFF"),
    "lzw tiff": encode(photo(20, 30), "TIFF", compression="tiff_lzw"),
    "avif": encode(photo(20, 30), "AVIF"),
    "jpeg 2000": encode(photo(40, 32), "JPEG2000"),
    "ppm": encode(photo(20, 30), "PPM"),
}
_REASONS = typing.get_args(ImageErrorReason)


def check_image(data):
    try:
        # A header may declare what it likes: the limit keeps the test small.
        pixels = decode_image(data, max_pixels=300_000)
    except ImageError as error:
        assert error.reason in _REASONS
        assert len(error.message.splitlines()) == 1
    else:
        assert (pixels.shape, pixels.dtype) == ((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


@steady
@given(st.binary(max_size=200), st.sampled_from([0, 2, 4, 8, 12, 20, 40]), st.sampled_from(sorted(_IMAGES)))
def test_any_bytes_are_pixels_or_an_image_error(raw, kept, name):
    check_image(raw)
    check_image(_IMAGES[name][:kept] + raw)


@st.composite
def _mutations(draw, data):
    """A file after a few accidents, most of them in its header."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(changed)) | st.integers(0, min(len(changed), 64)))
        kind = draw(st.sampled_from(["flip", "cut", "zeros", "insert", "repeat"]))
        if kind == "flip" and place < len(changed):
            changed[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del changed[max(place, 1) :]
        elif kind == "zeros":
            changed[place : place + 16] = bytes(len(changed[place : place + 16]))
        elif kind == "insert":
            changed[place:place] = draw(st.binary(max_size=8))
        elif kind == "repeat":
            changed[place:place] = changed[place : place + draw(st.integers(1, 200))]
    return bytes(changed)


@pytest.mark.parametrize("name", _IMAGES)
@steady_images
@given(data=st.data())
def test_a_mutated_image_is_pixels_or_an_image_error(name, data):
    check_image(data.draw(_mutations(_IMAGES[name])))


def test_the_images_themselves_decode():
    for name, data in _IMAGES.items():
        assert decode_image(data).shape == (IMAGE_SIZE, IMAGE_SIZE, 3), name
