from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import pathlib

import numpy as np
from PIL import Image

from preprocess.storage.retry import RetryPolicy
from trainer.data import photos
from trainer.data.photos import PhotoFinder, finder_of_sets, link_to, lists_of_sets
from trainer.data.record_sets import RecordSet, find_record_sets


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
    hostile = ["az://b/x.jpg", "/dev/zero", str(tmp_path), "a\0b", "x" * 5000, "", str(tmp_path / "text.jpg")]
    assert [finder.thumbnail(uri, side=8) for uri in hostile] == [None] * 7


def test_the_location_of_a_photo_is_known_without_reading_it(tmp_path, monkeypatch):
    one = PhotoFinder([str(tmp_path / "data" / "train.csv"), str(tmp_path / "data" / "more.csv")])
    assert one.location("a.jpg") == str(tmp_path / "data" / "a.jpg")
    assert one.location("../a.jpg") == str(tmp_path / "a.jpg")
    assert one.location("/x/a.jpg") == one.location("file:///x/a.jpg") == "/x/a.jpg"
    assert one.location("gs://b/a.jpg") == "gs://b/a.jpg"
    assert PhotoFinder(["gs://b/lists/train.csv"]).location("../a.jpg") == "gs://b/lists/../a.jpg"
    # A list in another folder makes relative URIs ambiguous, unless one of the two photos is not there.
    inside = photo(tmp_path / "b" / "1.png")
    two = PhotoFinder([str(tmp_path / "a" / "train.csv"), str(tmp_path / "b" / "train.csv")])
    assert two.location("1.png") == inside
    photo(tmp_path / "a" / "1.png")
    assert two.location("1.png") == two.location("missing.png") == two.location("a\0b") == ""
    # Without a list, only a photo that is there is sure; of records made elsewhere nothing is looked for.
    monkeypatch.chdir(tmp_path)
    assert PhotoFinder().location("b/1.png") == inside
    assert PhotoFinder().location("c/1.png") == PhotoFinder(below=()).location("b/1.png") == ""
    # The pipeline was given a relative path, perhaps in another folder than this one.
    assert PhotoFinder(["b/train.csv"]).location("1.png") == inside
    assert PhotoFinder(["b/train.csv"]).location("missing.png") == ""
    (tmp_path / "b" / "train.csv").touch()
    assert PhotoFinder(["b/train.csv"]).location("missing.png") == str(tmp_path / "b" / "missing.png")
    assert PhotoFinder(below=[str(tmp_path / "b")]).location("1.png") == inside


def test_of_two_photos_with_one_relative_name_the_one_with_the_digest_is_taken(tmp_path):
    first, second = (photo(tmp_path / name / "1.png", size) for name, size in (("a", (40, 20)), ("b", (30, 20))))
    finder = PhotoFinder([str(tmp_path / "a" / "train.csv"), str(tmp_path / "b" / "eval.csv")])
    for path in (first, second):
        content = pathlib.Path(path).read_bytes()
        assert finder.read("1.png", hashlib.sha256(content).hexdigest()[:32]) == (path, content)
    assert finder.read("1.png", "00" * 16) is None
    assert finder.read("1.png")[0] == first


def test_a_thumbnail_links_to_its_photo(tmp_path):
    path = tmp_path / "a photo#1 ä.png"
    Image.new("RGB", (20, 20)).save(path)
    link = PhotoFinder().thumbnail(str(path), side=8).link
    assert link == path.as_uri()
    assert link_to("gs://bucket/a photo.png") == "https://storage.cloud.google.com/bucket/a%20photo.png"


def test_a_thumbnail_is_a_small_jpeg(tmp_path):
    uri = photo(tmp_path / "a.png")
    data = PhotoFinder().thumbnail(uri, side=32).picture
    kind, _, encoded = data.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (32, 32)


def test_the_lists_of_sets_stand_in_their_reports(tmp_path):
    for name, content in (("train", {"input": ["a.csv", "b.csv"]}), ("eval", {"input": ["a.csv"]}), ("test", ["?"])):
        (tmp_path / f"_{name}").mkdir()
        (tmp_path / f"_{name}" / "report.json").write_text(json.dumps(content))
    names = ("train", "eval", "test", "missing")
    sets = [RecordSet(prefix=str(tmp_path / name), manifest=None) for name in names]
    assert lists_of_sets(sets) == ("a.csv", "b.csv")


def test_of_records_made_elsewhere_only_photos_in_the_folders_that_were_named_are_read(
    tmp_path, write_set, monkeypatch
):
    monkeypatch.setattr(photos, "_RETRY", RetryPolicy(limit_sec=0))  # One of the URIs is in a bucket of nobody.
    private = photo(tmp_path / "home" / "private.png")
    inside = photo(tmp_path / "photos" / "a.png")
    photo(tmp_path / "photos-of-others" / "a.png")
    (tmp_path / "photos" / "link.png").symlink_to(private)
    prefix = write_set(str(tmp_path / "preproc" / "train"), np.eye(3, dtype=np.float32), [[0], [1], [2]])
    (ours,) = find_record_sets([prefix], flag="train_data_paths")
    theirs = dataclasses.replace(ours, verified=False)
    assert finder_of_sets([ours], ()).read(private) is not None
    assert finder_of_sets([theirs], ()).read(private) is None
    assert finder_of_sets([ours, theirs], ()).thumbnail(inside, side=8) is None
    for sets in ([ours], [theirs]):
        finder = finder_of_sets(sets, [str(tmp_path / "photos"), "gs://bucket/photos"])
        assert finder.read(inside)[0] == finder.read("a.png")[0] == inside
        outside = [private, "../home/private.png", f"{tmp_path}/photos/../home/private.png", "link.png", "gs://other/a"]
        outside += [str(tmp_path / "photos-of-others" / "a.png"), "gs://bucket/photos-of-others/a.png", "a\0b"]
        assert [finder.read(uri) for uri in outside] == [None] * len(outside)


def test_thumbnails_are_decoded_in_another_process(tmp_path, monkeypatch):
    import preprocess.images.decode

    monkeypatch.setattr(preprocess.images.decode, "decode_image", None)
    monkeypatch.setattr(Image, "open", None)
    assert PhotoFinder().thumbnail(photo(tmp_path / "a.png"), side=8) is not None
