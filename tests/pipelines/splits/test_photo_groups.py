from __future__ import annotations

import csv
import os
import pathlib

import pytest

from configs.errors import InputError
from pipelines import ingest
from pipelines.splits.assign import name_share
from pipelines.splits.photo_groups import PhotoGroups
from preprocess.storage.base import LocalStorage


def keys(*paths: str, group_by: str | None = None) -> dict[str, str]:
    groups = PhotoGroups(group_by, {"c": paths}, lambda uri: LocalStorage(), lambda path: b"")
    return {path: key for path, (_, key) in zip(paths, groups.keys("c"), strict=True)}


def make(root: pathlib.Path, *paths: str) -> pathlib.Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def ingested(root: pathlib.Path, *flags: str) -> dict[str, str]:
    """{path: list} of what the program wrote."""
    out = root.parent / "lists"
    ingest.main(["--image_dir", str(root), "--output_dir", str(out), *flags])
    return {
        uri.removeprefix(f"../{root.name}/"): path.stem
        for path in out.glob("*.csv")
        for uri, _ in csv.reader(path.read_text().splitlines())
    }


def lists_of(found: dict[str, str], group) -> dict[str, set[str]]:
    lists: dict[str, set[str]] = {}
    for path, split in found.items():
        lists.setdefault(group(path), set()).add(split)
    return lists


def complaint(root: pathlib.Path, *flags: str) -> str:
    with pytest.raises(InputError) as caught:
        ingested(root, *flags)
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.webp", "a.NEF", "A.png"),
        ("IMG_1234.jpg", "IMG_1234 (1).jpg", "IMG_1234(2).jpg", "IMG_1234 (3).webp"),
        ("a.jpg", "a copy.jpg", "a copy 2.jpg", "a - Copy.jpg", "a - Copy (2).jpg", "a - Kopie.jpg", "Copy of a.jpg"),
        ("IMG_1234.JPG", "IMG_E1234.JPG", "IMG_1234-edited.jpg", "IMG_1234~2.jpg", "IMG_1234.DNG"),
        ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png"),
        ("leaf_nohash_1.jpg", "leaf_nohash_2.png", "leaf_nohash_3_nohash_4.jpg"),
        ("IMG_20200101_120000_BURST001_COVER.jpg", "IMG_20200101_120000_BURST2.jpg"),
        ("00000IMG_00000_BURST20191201103040123_COVER.jpg", "00001IMG_00001_BURST20191201103040123.jpg"),
        ("PXL_20210101_120000123.jpg", "PXL_20210101_120000123.RAW-01.COVER.jpg", "PXL_20210101_120000123~2.jpg"),
        ("rose_jpg.rf.704a89b56c56551451d58f02752a8e99.jpg", "rose_jpg.rf.50e491f21f35d9273e0e758afcd7d026.jpg"),
        (
            "i1.jpg",
            "daisy_original_i1.jpg_0fbe8eb3-6b2c-4a1c-9d6e-1b2c3d4e5f60.jpg",
            "daisy_original_i1.jpg_aaaaaaaa-6b2c-4a1c-9d6e-1b2c3d4e5f60.jpg",
        ),
    ],
)
def test_versions_and_shots_of_one_photo_have_one_key(names):
    assert len(set(keys(*(f"c/{name}" for name in names)).values())) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "b.jpg", "ab.jpg"),
        tuple(f"rose ({number}).jpg" for number in range(1, 30)),  # how Windows numbers a whole collection
        ("photo-edited.jpg", "other-edited.jpg"),
        ("IMG_E1234.jpg", "IMG_E1235.jpg"),
        ("nohash_1.jpg", "nohash_2.jpg"),
        ("face_mask.jpg", "other_mask.jpg", "mask.jpg"),
        ("BURST1.jpg", "BURST2.jpg"),
        ("PXL_20210101_120000123.jpg", "PXL_20210101_120000124.jpg"),
        (".jpg", "jpg", "a.b.jpg", "a.c.jpg"),
        ("sub/a.jpg", "b.jpg"),
    ],
)
def test_different_photos_keep_their_names_as_keys(names):
    paths = [f"c/{name}" for name in names]
    assert keys(*paths) == {path: os.path.basename(path) for path in paths}


def test_a_version_that_is_added_moves_no_photo_that_is_there():
    assert keys("c/a.jpg")["c/a.jpg"] == keys("c/a.jpg", "c/a (1).jpg", "c/a.NEF", "c/a.png")["c/a.jpg"] == "a.jpg"


def test_the_split_of_earlier_versions_is_kept(tmp_path):
    ends = ("JPG", "png", "jpg", "webp")
    names = [f"{label}/{label}{number}.{ends[number % 4]}" for label in "ab" for number in range(99)]
    found = ingested(make(tmp_path / "photos", *names))
    assert len(found) == len(names)
    for path, split in found.items():
        share = name_share(os.path.basename(path))
        assert split == ("eval" if share < 0.1 else "test" if share >= 0.9 else "train")


def test_photos_that_all_have_one_name(tmp_path, capsys):
    photos = make(tmp_path / "photos", *(f"{c}/patient{n:02}/slice.jpg" for c in "ab" for n in range(60)))
    found = ingested(photos)
    assert sorted(set(found.values())) == ["eval", "test", "train"]
    said = capsys.readouterr().err
    assert "120 photos have only 1 name, so the path of a photo decides about its list" in said
    assert "in earlier versions it was the name (--group_by name)" in said
    assert set(ingested(photos, "--group_by", "name").values()) == {"train"}
    assert ingested(photos, "--group_by", "path") == found


def test_few_names_in_many_classes(tmp_path):
    found = ingested(make(tmp_path / "photos", *(f"{c:03}/{n}.jpg" for c in range(300) for n in range(3))))
    assert 60 < list(found.values()).count("eval") < 120


def test_names_that_are_shared_are_said(tmp_path, capsys):
    photos = make(tmp_path / "photos", *(f"{c}/{n}.jpg" for c in "abc" for n in range(100)))
    found = ingested(photos)
    said = capsys.readouterr().err
    assert "300 photos have 100 names, and photos of one name are always in one list; --group_by path takes" in said
    assert all(len(lists) == 1 for lists in lists_of(found, os.path.basename).values())


PATIENTS = [f"{c}/p{n % 40:02}/{n}.jpg" for c in ("benign", "malign") for n in range(200)]


@pytest.mark.parametrize("group_by", ["parent", r"/(p\d+)/", r"p\d\d"])
@pytest.mark.parametrize("stratify", [(), ("--stratify",)])
def test_photos_of_one_thing_are_in_one_list(tmp_path, capsys, group_by, stratify):
    found = ingested(make(tmp_path / "photos", *PATIENTS), "--group_by", group_by, *stratify)
    lists = lists_of(found, lambda path: path.split("/")[1])
    assert len(lists) == 40 and all(len(splits) == 1 for splits in lists.values())
    assert set(found.values()) == {"train", "eval", "test"}
    assert "400 photos in 40 groups of at most 10." in capsys.readouterr().err


def test_folders_below_the_classes_are_said(tmp_path, capsys):
    photos = make(tmp_path / "photos", *PATIENTS)
    ingested(photos)
    said = capsys.readouterr().err
    assert "400 photos lie in 80 folders below their class folders" in said and "pass --group_by parent" in said
    ingested(photos, "--group_by", "name")
    assert "below their class folders" not in capsys.readouterr().err


def test_groups_from_a_file(tmp_path, capsys):
    photos = make(tmp_path / "photos", *(f"{c}/{c}{n}.jpg" for c in "ab" for n in range(100)))
    groups = tmp_path / "groups of photos.csv"
    rows = [
        f"{c}/{c}{n}.jpg,cat {n % 20}\n" if n % 2 else f"{c}{n}.jpg,cat {n % 20}\n" for c in "ab" for n in range(90)
    ]
    groups.write_text("\ufeffphoto,group\n\n" + "".join(rows))
    found = ingested(photos, "--group_by", str(groups))
    lists = lists_of(found, lambda path: path[3:].removesuffix(".jpg"))
    by_group: dict[int, set[str]] = {}
    for number, splits in lists.items():
        if int(number) < 90:
            by_group.setdefault(int(number) % 20, set()).update(splits)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert "--group_by says nothing of 20 of 200 photos; each of them stands for itself." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("parent", "none of the photos lies in a folder below its class folder (a/1.jpg)"),
        ("(", "nor a regular expression (missing ), unterminated subpattern at position 0). Received: '('."),
        ("nowhere.csv", "nowhere.csv cannot be read as a CSV file photo,group ("),
        ("patient", "it says nothing of any of the 2 photos (such as a/1.jpg)"),
        ("FILE:a/1.jpg,x,y\n", "groups.csv:1: a row must be photo,group. Received: 'a/1.jpg,x,y'."),
        ("FILE:1.jpg,\n", "groups.csv:1: a row must be photo,group. Received: '1.jpg,'."),
        ("FILE:1.jpg,x\n1.jpg,y\n", "groups.csv:2: '1.jpg' is in two groups, 'x' and 'y'. Keep one."),
        ("FILE:9.jpg,x\n", "it says nothing of any of the 2 photos"),
    ],
)
def test_wrong_groups(tmp_path, group_by, expected):
    if group_by.startswith("FILE:"):
        (tmp_path / "groups.csv").write_text(group_by.removeprefix("FILE:"))
        group_by = str(tmp_path / "groups.csv")
    message = complaint(make(tmp_path / "photos", "a/1.jpg", "b/2.jpg"), "--group_by", group_by)
    assert message.startswith("--group_by: ") and expected in message


def test_photos_that_change_the_list_are_said(tmp_path, capsys):
    photos = make(tmp_path / "photos", *(f"{c}/{c}{n}.jpg" for c in "ab" for n in range(100)))
    before = ingested(photos)
    capsys.readouterr()
    ingested(photos)
    assert "changed the list" not in capsys.readouterr().err
    after = ingested(photos, "--eval_percent", "30")
    moved = sum(before[path] != after[path] for path in before)
    said = capsys.readouterr().err
    assert moved and f"{moved} photos of the earlier lists changed the list: {moved} from train to eval." in said
    assert f"A model of the earlier lists was trained on {moved} of them" in said
    (tmp_path / "lists" / "train.csv").write_bytes(b"\xff\x00")  # Not a list; it is replaced without a word.
    assert ingested(photos, "--eval_percent", "30") == after


def test_masks_in_class_folders_are_said(tmp_path, capsys):
    names = [f"{c}/{c} ({n}){mask}.png" for c in ("benign", "normal") for n in range(1, 30) for mask in ("", "_mask")]
    found = ingested(make(tmp_path / "photos", *names))
    assert all(len(lists) == 1 for lists in lists_of(found, lambda path: path.replace("_mask", "")).values())
    said = capsys.readouterr().err
    assert "warning: 58 photos are named like the mask of another photo (benign/benign (1)_mask.png, " in said


def test_groups_that_the_folders_tear_apart_are_said(tmp_path, capsys):
    paths = [f"{s}/{c}/p{n % 20}/{s}{c}{n}.jpg" for s in ("train", "val") for c in "ab" for n in range(40)]
    photos = make(tmp_path / "photos", *paths)
    ingested(photos, "--group_by", "parent")
    said = capsys.readouterr().err
    assert "20 groups of photos are in several lists, as the folders split them" in said
    found = ingested(photos, "--group_by", "parent", "--split_folders", "pool")
    assert all(len(lists) == 1 for lists in lists_of(found, lambda path: path.split("/")[2]).values())
    assert "in several lists" not in capsys.readouterr().err
