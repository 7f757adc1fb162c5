from __future__ import annotations

import csv
import pathlib

import pytest

from configs.errors import InputError
from pipelines import ingest
from pipelines.splits.given_split import list_of_folder
from tests.pipelines.test_ingest import FakeStorage


def tree(root: pathlib.Path, **folders: int) -> pathlib.Path:
    """Photos with names of their own: `tree(root, **{"train/daisy": 3})` makes three files in that folder."""
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{folder.replace('/', '-')}-{number}.jpg").touch()
    return root


def ingested(root: pathlib.Path, *flags: str) -> dict[str, dict[str, set[str]]]:
    """{list: {label: top folders of its photos}} of what the program wrote."""
    out = root.parent / "lists"
    assert ingest.main(["--image_dir", str(root), "--output_dir", str(out), *flags]) == 0
    found: dict[str, dict[str, set[str]]] = {}
    for path in out.glob("*.csv"):
        for uri, label in csv.reader(path.read_text().splitlines()):
            folder = uri.removeprefix(f"../{root.name}/").rpartition("/")[0]
            found.setdefault(path.stem, {}).setdefault(label, set()).add(folder)
    assert (out / "dict.txt").read_text().splitlines() == sorted({label for row in found.values() for label in row})
    return found


def complaint(root: pathlib.Path, *flags: str) -> str:
    with pytest.raises(InputError) as caught:
        ingest.main(["--image_dir", str(root), "--output_dir", str(root.parent / "lists"), *flags])
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("train", "Training", "TRAIN", "training_set", "trainset", "seg_train")],
        *[(name, "train") for name in ("train2017", "train_images", "asl_alphabet_train", "Train-Data", "01_train")],
        *[(name, "eval") for name in ("val", "valid", "Validation", "eval", "evaluation", "dev", "val2017", "valset")],
        *[(name, "test") for name in ("test", "TEST", "testing", "test_set", "test-multiple_fruits", "holdout")],
        *[
            (name, None)
            for name in ("trains", "contest", "latest", "valley", "device", "train_test", "trainer", "daisy")
        ],
        *[(name, None) for name in ("protest", "medieval", "testimony", "étest", "evals", "")],
    ],
)
def test_names_that_speak_of_a_list(name, split):
    spoken = list_of_folder(name)
    assert (spoken and spoken[0]) == split


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train_set", "validation_set", "test_set")]
)
def test_a_folder_that_is_split_is_taken_as_its_lists(tmp_path, capsys, names):
    folders = {f"{name}/{label}": 4 for name in names for label in ("daisy", "roses")}
    found = ingested(tree(tmp_path / "photos", **folders))
    assert found == {
        split: {label: {f"{name}/{label}"} for label in ("daisy", "roses")}
        for split, name in zip(("train", "eval", "test"), names, strict=True)
    }
    said = capsys.readouterr().err
    assert f"split already: {names[0]}/ -> train.csv, {names[1]}/ -> eval.csv, {names[2]}/ -> test.csv." in said


@pytest.mark.parametrize(
    "inside",
    ["data", "archive/data", "test"],
    ids=["one folder deeper", "two folders deeper", "in a folder called test"],
)
def test_a_split_may_lie_deeper(tmp_path, inside):
    folders = {f"{inside}/{name}/{label}": 3 for name in ("train", "val") for label in ("a", "b")}
    found = ingested(tree(tmp_path / "photos", **folders))
    assert found["eval"] == {"a": {f"{inside}/val/a"}, "b": {f"{inside}/val/b"}}
    assert found.keys() == {"train", "eval"}  # no photo of training becomes one of a test that nobody asked for


def test_archives_that_repeat_the_name_of_the_folder(tmp_path, capsys):
    photos = tree(
        tmp_path / "photos",
        **{f"seg_{name}/seg_{name}/{label}": 40 for name in ("train", "test") for label in ("sea", "street")},
        **{"seg_pred/seg_pred": 5},
    )
    found = ingested(photos)
    assert found["test"] == {label: {f"seg_test/seg_test/{label}"} for label in ("sea", "street")}
    assert found["eval"].keys() == {"sea", "street"}
    said = capsys.readouterr().err
    assert "no folder for evaluation; 10 % of the training photos are taken for it." in said
    assert "seg_pred/ has no class folder that training has, so its 5 images have no label and are left out." in said


def test_classes_first_and_lists_below_them(tmp_path, capsys):
    found = ingested(tree(tmp_path / "photos", **{f"{c}/{s}": 3 for c in ("a", "test") for s in ("train", "val")}))
    assert found == {
        "train": {"a": {"a/train"}, "test": {"test/train"}},
        "eval": {"a": {"a/val"}, "test": {"test/val"}},
    }
    assert "hold the same folders" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "folders",
    [
        {"daisy": 30, "roses": 30, "test": 30},
        {"daisy": 30, "train": 30, "test": 30},
        {"plane/raw": 30, "train/raw": 30, "test/raw": 30},
        {"plane/red": 30, "plane/blue": 30, "train/red": 30, "train/blue": 30, "val/red": 30, "val/blue": 30},
        {"trains": 30, "planes": 30},
        {"a/train": 30, "a/other": 30, "b": 30},
    ],
)
def test_classes_that_are_named_like_lists_stay_classes(tmp_path, folders):
    photos = tree(tmp_path / "photos", **folders)
    assert ingested(photos)["train"].keys() == {name.partition("/")[0] for name in folders}


def test_classes_that_a_list_lacks_and_has_alone(tmp_path, capsys):
    folders = {"train/a": 30, "train/b": 30, "train/c": 30, "val/a": 3, "val/b": 3, "test/a": 3, "test/d": 3}
    found = ingested(tree(tmp_path / "photos", **folders))
    assert found["eval"].keys() == {"a", "b"} and found["test"].keys() == {"a", "d"}
    said = capsys.readouterr().err
    assert "NO TRAINING IMAGE of d: the model can never learn it. Add photos to the training folder." in said
    assert "no evaluation image of c, d" in said


def test_test_photos_without_labels_are_left_out_and_said(tmp_path, capsys):
    folders = {"train/a": 40, "train/b": 40, "train": 2, "test": 5}
    found = ingested(tree(tmp_path / "photos", **folders))
    assert found.keys() == {"train", "eval"} and found["train"].keys() == {"a", "b"}
    said = capsys.readouterr().err
    assert "test/ has no class folder that training has, so its 5 images have no label and are left out." in said
    assert "2 images in no class folder, left out: train/train-0.jpg, train/train-1.jpg." in said
    found = ingested(tree(tmp_path / "more", **{"train/a": 40, "train/b": 40, "test/unknown": 5}))
    assert found["train"].keys() == {"a", "b"}


def test_two_folders_of_one_list_are_taken_together(tmp_path, capsys):
    folders = {f"{name}/{c}": 3 for name in ("train", "training", "val", "dev", "test", "Test") for c in "ab"}
    found = ingested(tree(tmp_path / "photos", **folders))
    assert found["train"]["a"] == {"train/a", "training/a"}
    assert found["eval"]["a"] == {"dev/a", "val/a"}
    assert found["test"]["a"] == {"test/a", "Test/a"}
    assert "train/ -> train.csv, training/ -> train.csv" in capsys.readouterr().err


def test_folders_beside_the_lists_are_left_out_and_said(tmp_path, capsys):
    folders = {f"{name}/{c}": 3 for name in ("train", "val") for c in "ab"} | {"sample": 4, "empty": 0}
    assert ingested(tree(tmp_path / "photos", **folders))["train"].keys() == {"a", "b"}
    assert "sample/ has no class folder that training has, so its 4 images" in capsys.readouterr().err


def test_split_folders_says_otherwise(tmp_path, capsys):
    photos = tree(tmp_path / "photos", **{f"{s}/{c}": 60 for s in ("train", "val") for c in "ab"})
    pooled = ingested(photos, "--split_folders", "pool")
    assert pooled["test"]["a"] == pooled["train"]["a"] == {"train/a", "val/a"}
    assert "the photos of train, val are put together and split anew" in capsys.readouterr().err
    assert ingested(photos, "--split_folders", "classes")["train"].keys() == {"train", "val"}


def test_flags_that_split_what_is_split_are_refused(tmp_path):
    photos = tree(tmp_path / "photos", **{f"{s}/{c}": 60 for s in ("train", "val") for c in "ab"})
    for flags in (["--eval_percent", "20"], ["--stratify"]):
        assert complaint(photos, *flags).startswith(f"{flags[0]}: {photos} is split already")
    found = ingested(photos, "--test_percent", "20", "--stratify")
    assert found["test"]["a"] == {"train/a"} and found["eval"]["a"] == {"val/a"}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": 3, "test": 3}, "the photos lie directly in them and so have no label"),
        ({"train": 3, "val": 3, "test/normal": 3, "test/anomaly": 3}, "the photos to train on lie in no class folder"),
        ({"val/a": 3, "val/b": 3, "test/a": 3, "test/b": 3}, "there is none to train on"),
        ({"train/good": 3, "test/good": 3, "test/bad": 3, "ground_truth/bad": 3}, "are test, train lists or classes?"),
        ({"train/p1": 3, "train/p2": 3, "test/p3": 3, "test/p4": 3}, "no class folder of test (p3, p4) is in"),
    ],
)
def test_folders_named_like_lists_that_are_no_split_are_refused(tmp_path, folders, expected):
    photos = tree(tmp_path / "photos", **folders)
    message = complaint(photos)
    assert expected in message and message.endswith("If these are the classes, pass --split_folders classes.")
    ingested(photos, "--split_folders", "classes", "--stratify")


def test_a_split_in_a_bucket(tmp_path):
    files = {f"gs://b/photos/{s}/{c}/{n}.jpg": b"" for s in ("train", "val") for c in "xy" for n in range(3)}
    storage = FakeStorage(files)
    argv = ["--image_dir", "gs://b/photos", "--output_dir", "gs://b/data"]
    assert ingest.main(argv, storage=storage) == 0
    assert storage.files["gs://b/data/dict.txt"] == b"x\ny\n"
    rows = list(csv.reader(storage.files["gs://b/data/eval.csv"].decode().splitlines()))
    assert sorted(rows) == sorted([f"gs://b/photos/val/{c}/{n}.jpg", c] for c in "xy" for n in range(3))


def test_the_folders_of_detection_data_are_one_class(tmp_path):
    photos = tree(tmp_path / "photos", **{"train/images": 3, "train/labels": 0, "valid/images": 3})
    message = complaint(photos)
    assert "only one class has images ('images', 6 of them)" in message
    assert "--image_dir" not in message


def test_folders_that_may_be_something_else_than_classes_are_said(tmp_path, capsys):
    ingested(tree(tmp_path / "photos", **{f"{year}/{c}": 30 for year in ("2021", "2022") for c in ("cats", "dogs")}))
    assert "warning: all class folders hold the same folders (cats, dogs)." in capsys.readouterr().err
    ingested(tree(tmp_path / "more", **{f"{c}/p{n}": 30 for c in ("benign", "malign") for n in range(3)}))
    ingested(tree(tmp_path / "other", **{"a/near": 30, "a/far": 30, "b/near": 30, "b/far": 30, "b": 1}))
    assert "hold the same folders" not in capsys.readouterr().err


def test_a_training_folder_beside_folders_that_are_no_lists_is_said(tmp_path, capsys):
    ingested(tree(tmp_path / "photos", **{"train/a": 30, "train/b": 30, "unlabelled": 30}))
    assert "warning: train is a class with folders of its own." in capsys.readouterr().err
    ingested(tree(tmp_path / "more", train=30, plane=30))
    assert "folders of its own" not in capsys.readouterr().err
