from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from trainer.photos import PhotoFinder, lists_of_sets


def photo(path, size=(40, 20)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size[::-1], 3), 200, np.uint8)).save(path)
    return str(path)


def test_uris_are_found_beside_the_list_that_names_them(tmp_path):
    inside = photo(tmp_path / "photos" / "a.png")
    finder = PhotoFinder([str(tmp_path / "data" / "train.csv"), str(tmp_path / "eval.csv")])
    content = (tmp_path / "photos" / "a.png").read_bytes()
    assert finder.read("photos/a.png") == (str(tmp_path / "photos" / "a.png"), content)
    (tmp_path / "data").mkdir()
    assert finder.read("../photos/a.png") == (str(tmp_path / "data" / ".." / "photos" / "a.png"), content)
    assert finder.read(inside) == finder.read(f"file://{inside}") == (inside, content)
    assert finder.some(["no.png", inside, inside, inside], at_most=2, tries=9) == [(inside, content)] * 2
    assert finder.some(["no.png", inside], at_most=2, tries=1) == []


def test_what_is_no_photo_at_hand_is_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    finder = PhotoFinder()
    hostile = ["s3://b/x.jpg", "/dev/zero", str(tmp_path), "a\0b", "x" * 5000, "", str(tmp_path / "text.jpg")]
    assert [finder.thumbnail(uri, side=8) for uri in hostile] == [None] * 7


def test_a_thumbnail_is_a_small_jpeg(tmp_path):
    uri = photo(tmp_path / "a.png")
    data = PhotoFinder().thumbnail(uri, side=32)
    kind, _, encoded = data.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (32, 32)


def test_the_lists_of_sets_stand_in_their_reports(tmp_path):
    for name, content in (("train", {"input": ["a.csv", "b.csv"]}), ("eval", {"input": ["a.csv"]}), ("test", ["?"])):
        (tmp_path / f"_{name}").mkdir()
        (tmp_path / f"_{name}" / "report.json").write_text(json.dumps(content))
    prefixes = [str(tmp_path / name) for name in ("train", "eval", "test", "missing")]
    assert lists_of_sets(prefixes) == ("a.csv", "b.csv")
