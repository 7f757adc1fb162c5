from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evaluation_sets import dataset
from trainer.data.shared_images import find_overlap, find_shared_images, image_numbers, shared_image_warnings


def images(*uris_and_contents):
    """A data set of images: (URI, content); equal contents have equal digests, and None has none."""
    digests = [
        bytes(16) if content is None else hashlib.sha256(repr(content).encode()).digest()[:16]
        for _, content in uris_and_contents
    ]
    return dataclasses.replace(
        dataset(*([0] for _ in digests)),
        uris=np.array([uri for uri, _ in uris_and_contents], dtype=object),
        image_digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
    )


def test_the_same_photo_under_another_name_is_found():
    train = images(("a.jpg", 1), ("b.jpg", 2), ("again.jpg", 2), ("c.jpg", 3))
    held_out = images(("x.jpg", 9), ("y.jpg", 2), ("z.jpg", 1), ("y2.jpg", 2))
    overlap = find_overlap(held_out, train)
    assert overlap.rows.tolist() == [1, 2, 3]
    assert overlap.other_rows.tolist() == [1, 0, 1]  # The first of those that are equal.
    assert overlap.by_content.all()
    assert overlap.num_unchecked == 0


@pytest.mark.parametrize("folder", ["", "/data/", "gs://bucket/"])
def test_other_photos_with_equal_names_are_not_shared(folder):
    train = images((f"{folder}1.jpg", "a"), (f"{folder}2.jpg", "b"))
    held_out = images((f"{folder}1.jpg", "c"), (f"{folder}2.jpg", "d"))
    assert len(find_overlap(held_out, train).rows) == 0
    assert shared_image_warnings(find_shared_images({"train": train, "eval": held_out})) == []


@pytest.mark.parametrize("mixed", [False, True])
def test_without_digests_only_absolute_uris_are_compared(mixed):
    train = images(("gs://b/1.jpg", "known" if mixed else None), ("/data/2.jpg", None), ("/data/3.jpg", None))
    held_out = images(("gs://b/1.jpg", None), ("/data/2.jpg", "other"), ("/data/9.jpg", None), ("4.jpg", None))
    overlap = find_overlap(held_out, train)
    assert overlap.rows.tolist() == [0, 1]
    assert overlap.other_rows.tolist() == [0, 1]
    assert not overlap.by_content.any()
    assert overlap.num_unchecked == 1  # 4.jpg


def test_relative_uris_without_digests_say_nothing_and_that_is_said():
    train, held_out = images(("1.jpg", None), ("2.jpg", None)), images(("1.jpg", None))
    shared = find_shared_images({"train": train, "eval": held_out})
    assert len(shared["eval"].rows) == 0
    (warning,) = shared_image_warnings(shared)
    assert "1 of the 1 evaluation images cannot be compared with the training images" in warning
    assert shared["eval"].to_json() == {"train": {"shared": 0, "unchecked": 1, "labels_differ": 0}}


def test_data_without_any_digest_can_be_compared_too():
    train = dataclasses.replace(images(("/1.jpg", None)), image_digests=None)
    assert find_overlap(train, train).rows.tolist() == [0]
    assert image_numbers(train).tolist() == [0]


def test_a_test_set_is_compared_with_the_evaluation_set_too():
    sets = {"train": images(("a", 1), ("b", 2)), "eval": images(("c", 3)), "test": images(("d", 3), ("e", 1), ("f", 4))}
    shared = find_shared_images(sets)
    assert shared["test"].rows.tolist() == [0, 1]
    warnings = shared_image_warnings(shared)
    assert [warning.partition(":")[0] for warning in warnings] == [
        "1 of the 3 test images is also one of the training images",
        "1 of the 3 test images is also one of the evaluation images",
    ]


@pytest.mark.parametrize(
    ("labels", "consequence", "differing"),
    [
        ([0, 0], "are also training images: the accuracy looks too good. shared_images.csv names the pairs", 0),
        ([0, 1], "are also training images: 1 of them has another label there, so the labels contradict each other", 1),
        ([1, 1], "are also training images: all of them have other labels there, so the labels contradict each", 2),
        ([1], "is also one of the training images: it has another label there, so the labels contradict each", 1),
    ],
)
def test_what_shared_images_do_to_the_accuracy_depends_on_their_labels(labels, consequence, differing):
    train = images(("a", 1), ("b", 2))
    names = "cd"[: len(labels)]
    held_out = dataclasses.replace(images(*zip(names, (1, 2), strict=False)), label_ids=np.array(labels, np.int32))
    shared = find_shared_images({"train": train, "eval": held_out})
    (warning,) = shared_image_warnings(shared, look="hugs twins")
    assert consequence in warning
    assert ("too good" in warning, "too bad" in warning) == (not differing, differing == len(labels))
    assert warning.endswith("; to look at the photos: hugs twins") == bool(differing)
    assert shared["eval"].to_json()["train"]["labels_differ"] == shared["eval"].num_labels_differ == differing


_digests = st.lists(st.binary(min_size=2, max_size=2), min_size=1, max_size=30)


@settings(deadline=None, derandomize=True)
@given(_digests, _digests)
def test_pairs_are_those_that_a_comparison_of_all_with_all_finds(ours, others):
    # Digests that differ in few bytes, and end in zeros. The first byte says that they are known.
    def with_digests(values):
        array = np.array([list(b"\1" + value + bytes(13)) for value in values], np.uint8)
        return dataclasses.replace(dataset(*([0] for _ in values)), image_digests=array)

    overlap = find_overlap(with_digests(ours), with_digests(others))
    expected = [(row, others.index(value)) for row, value in enumerate(ours) if value in others]
    assert list(zip(overlap.rows.tolist(), overlap.other_rows.tolist(), strict=True)) == expected


def test_numbers_of_images_are_those_of_uris_unless_contents_are_equal():
    numbers = image_numbers(images(("b", 1), ("a", 2), ("c", 1), ("d", None), ("d", None), ("a2", 2)))
    assert numbers.tolist() == [2, 0, 2, 4, 4, 0]
