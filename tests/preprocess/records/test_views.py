"""How views are drawn: the same numbers everywhere and for ever, of the distributions of retrain.py."""

import hashlib
import json

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.records.example import RecordLayout, decode_example, encode_example, feature_spec
from preprocess.records.record_set import Manifest
from preprocess.records.views import Views
from tests.support.stand_ins import IDENTITY

ALL = Views(count=32, flip_left_right=True, random_crop=10, random_scale=20, random_brightness=30)
DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(64)]
DRAWN = [one for digest in DIGESTS for one in ALL.distortions(digest, size=299)]


def test_the_numbers_of_a_view_never_change():
    # Sets that were made before hold these views: other numbers would be other records of the same job.
    first = ALL.distortion(DIGESTS[0], 1, size=299)
    assert (first.side, first.left, first.top, first.mirrored) == (338, 37, 39, False)
    assert first.brightness == pytest.approx(0.9486852449378286)
    assert ALL.distortion(DIGESTS[0], 2, size=299) != first


def test_views_are_drawn_from_the_distributions_of_retrain():
    sides, brightness = (np.array([getattr(one, name) for one in DRAWN]) for name in ("side", "brightness"))
    smallest, largest = 299 * 1.1, 299 * 1.1 * 1.2
    assert int(smallest) <= sides.min() < smallest + 1.5 and largest - 2 < sides.max() <= largest
    assert abs(sides.mean() - (smallest + largest) / 2) < 2
    assert 0.7 <= brightness.min() < 0.71 and 1.29 < brightness.max() <= 1.3
    assert abs(brightness.mean() - 1) < 0.02
    assert abs(np.mean([one.mirrored for one in DRAWN]) - 0.5) < 0.05
    places = np.array([[one.left / (one.side - 299), one.top / (one.side - 299)] for one in DRAWN])
    assert (places.min(0) == 0).all() and (places.max(0) == 1).all()
    assert np.abs(places.mean(0) - 0.5).max() < 0.03
    drawn = np.column_stack([places, sides, brightness, [one.mirrored for one in DRAWN]])
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.1


@pytest.mark.parametrize("size", [8, 128, 224, 299, 1024])
@pytest.mark.parametrize("percent", [0, 0.1, 1, 33, 99])
def test_what_is_cut_out_lies_within_the_square(size, percent):
    views = Views(count=32, random_crop=percent, random_scale=percent)
    for digest in DIGESTS[:8]:
        for one in views.distortions(digest, size=size):
            assert size <= one.side <= size * views.largest_side + 1e-6
            assert 0 <= one.left <= one.side - size and 0 <= one.top <= one.side - size
            assert not one.mirrored and one.brightness == 1


def test_what_is_not_asked_for_changes_nothing_of_the_rest():
    darker = Views(count=2, random_crop=10, random_scale=20, random_brightness=99)
    one, other = darker.distortion(DIGESTS[0], 1, size=299), ALL.distortion(DIGESTS[0], 1, size=299)
    assert (one.side, one.left, one.top) == (other.side, other.left, other.top)


def test_views_survive_json():
    assert Views.from_json(ALL.to_json()) == ALL
    assert Views.from_json(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"count": 1}, {"count": 2.5}, {"count": True}, {"flip_left_right": 1}, {"random_crop": "10"},
        {"random_scale": -1}, {"random_scale": float("nan")}, {"random_brightness": 100}, {"more": 1},
    ],
)  # fmt: skip
def test_what_are_no_views_is_refused(change):
    with pytest.raises((TypeError, ValueError)):
        Views.from_json({**ALL.to_json(), **change})
    with pytest.raises(TypeError):
        Views.from_json([2])


def test_a_manifest_with_views_that_are_none_is_one_line():
    manifest = Manifest(backbone=IDENTITY, labels=("a",), compression="none", records=0, shards=(), views=ALL)
    assert Manifest.from_bytes(manifest.to_bytes(), where="m") == manifest
    raw = json.loads(manifest.to_bytes())
    assert Manifest.from_bytes(json.dumps(raw | {"views": None}).encode(), where="m").views is None
    del raw["views"]
    assert Manifest.from_bytes(json.dumps(raw).encode(), where="a set of an earlier version").views is None
    for wrong in (4, {}, {"count": 1}, {"count": 4, "zoom": 1}):
        with pytest.raises(InputError, match="m: a field of the manifest is missing or wrong"):
            Manifest.from_bytes(json.dumps(raw | {"views": wrong}).encode(), where="m")


@pytest.mark.parametrize("label_ids", [(), (3,), (1, 200)])
def test_a_record_of_several_views_is_read_by_everyone(label_ids):
    import tensorflow as tf

    embeddings = np.random.RandomState(0).normal(size=(4, 5)).astype(np.float32)
    fields = {"image_uri": "é.jpg", "label_ids": label_ids, "image_sha256": DIGESTS[0]}
    data = encode_example(**fields, embedding=embeddings[0], view_embeddings=embeddings[1:])
    decoded = decode_example(data)
    np.testing.assert_array_equal(decoded.embeddings, embeddings)
    np.testing.assert_array_equal(decoded.view_embeddings, embeddings[1:])
    assert (decoded.image_uri, decoded.image_sha256) == ("é.jpg", DIGESTS[0])
    # Who knows nothing of views reads view 0, also by the fast way.
    plain = encode_example(**fields, embedding=embeddings[0])
    position, *found = RecordLayout(5).find(b"x" + data + b"y", 1, 1 + len(data))
    assert found == list(RecordLayout(5).find(plain, 0, len(plain))[1:]) == [b"", DIGESTS[0], "é.jpg", label_ids]
    np.testing.assert_array_equal(np.frombuffer(b"x" + data, "<f4", 5, position), embeddings[0])
    assert RecordLayout(5).find(data, 0, len(data) - 1) is None
    parsed = tf.io.parse_single_example(data, feature_spec(5))
    np.testing.assert_array_equal(parsed["embedding"], embeddings[0])
    parsed = tf.io.parse_single_example(data, feature_spec(5, views=4))
    np.testing.assert_array_equal(parsed["view_embeddings"], embeddings[1:])
