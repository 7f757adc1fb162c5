"""Bottlenecks of retrain.py: their names, their content, and the split that it made."""

import os

import numpy as np
import pytest

from preprocess.lists.bottlenecks import find_bottlenecks, parse_bottleneck, retrain_split
from preprocess.lists.outcomes import RowFailure


def test_every_file_is_there_and_names_its_image_and_network(tmp_path):
    hub = "https~tfhub.dev~google~imagenet~mobilenet_v1_100_224~feature_vector~1"
    names = {
        "roses/a.jpg_inception_v3.txt": ("a.jpg", "inception_v3"),
        "roses/a.jpg_mobilenet_1.0_224.txt": ("a.jpg", "mobilenet_1.0_224"),
        "roses/b.JPEG.txt": ("b.JPEG", "inception_v3"),
        "roses/c.jpg_d.jpg_inception_v3.txt": ("c.jpg_d.jpg", "inception_v3"),
        f"roses/e.png_{hub}.txt": ("e.png", hub),
        "roses/notes.txt": "not_a_bottleneck",
        "roses/a.jpg": "not_a_bottleneck",
        "roses/old/a.jpg_inception_v3.txt": "not_in_a_label_folder",
        "a.jpg_inception_v3.txt": "not_in_a_label_folder",
    }
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tulips").symlink_to("roses")
    (tmp_path / "roses" / "back").symlink_to("..")
    found = list(find_bottlenecks(str(tmp_path)))
    assert len({file.path for file in found}) == len(found)
    seen = {file.path: (file.image, file.architecture) if file.skip is None else file.skip.rule for file in found}
    assert {path: what for path, what in seen.items() if not path.startswith("tulips/")} == {
        **names,
        "roses/back": "not_a_bottleneck",
    }
    assert seen["tulips/b.JPEG.txt"] == ("b.JPEG", "inception_v3")
    assert {file.label for file in found if file.skip is None} == {"roses", "tulips"}


def test_the_numbers_are_those_of_the_text():
    values = np.array([0.25, 1e-8, 3.4028235e38, 0.1], np.float32)
    text = ",".join(str(value) for value in values)
    for data in (text, f"{text}\n", text.replace(",", ", ")):
        embedding = parse_bottleneck(data.encode(), where="a")
        assert embedding.dtype == np.float32
        assert embedding.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("data", "reason", "shown"),
    [
        (b"", "empty_file", ""),
        (b" \n", "empty_file", ""),
        (b"1,2,", "not_a_number", "number 3 is ''"),
        (b"1,x,2", "not_a_number", "number 2 is 'x'"),
        (b"1 2", "not_a_number", "number 1 is '1 2'"),
        (b"\xff\xfe1,2", "not_a_number", "number 1"),
        (b"1,2\n3,4", "not_a_number", "number 2"),
        (b"1,nan", "not_finite", "number 2 is nan"),
        (b"1e40,1", "not_finite", "number 1 is 1e40"),
        (b"0,0.0,-0", "all_zero", "all 3 numbers"),
    ],
)
def test_what_is_no_embedding_says_why(data, reason, shown):
    with pytest.raises(RowFailure) as caught:
        parse_bottleneck(data, where="roses/a.txt")
    assert caught.value.reason == reason
    assert "roses/a.txt" in caught.value.message
    assert shown in caught.value.message


def reference_split(path, validation, testing):
    """The lines of `create_image_lists`, as a formula with whole numbers."""
    import hashlib

    number = int.from_bytes(hashlib.sha1(path.split("_nohash_")[0].encode()).digest(), "big") % 2**27
    percent = number * (100.0 / (2**27 - 1))
    return "eval" if percent < validation else "test" if percent < testing + validation else "train"


def test_the_split_is_that_of_retrain():
    paths = [os.path.join("flower_photos", "roses", f"{i}.jpg") for i in range(300)]
    splits = [retrain_split(path, eval_percent=10, test_percent=20) for path in paths]
    assert splits == [reference_split(path, 10, 20) for path in paths]
    assert 150 < splits.count("train") < 250
    assert len({retrain_split(f"d/a_nohash_{i}.jpg", eval_percent=40, test_percent=30) for i in range(30)}) == 1
