"""`hugs map`: from record sets to a page, its table, and a map that goes on from it."""

import csv
import json
import re

import numpy as np
import pytest

from configs.errors import InputError
from insight.map import main
from tests.support.near_photos import write_photo_set
from tests.support.written_sets import write_record_set

COLOURS = [(250, 10, 10), (240, 30, 20), (10, 240, 10), (20, 250, 30), (10, 10, 240), (30, 20, 250)]
LABEL_IDS = [[0], [0], [1], [1], [2], []]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photo_set(tmp_path_factory.mktemp("photos"), "train", COLOURS, LABEL_IDS)


def run(photos, output, *more, thumbnails=0):
    flags = ["--data_paths", photos, "--output_path", str(output), "--reducer", "pca"]
    assert main([*flags, "--thumbnails", str(thumbnails), *more]) == 0
    with open(output / "map.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    page = (output / "map.html").read_text()
    return rows, page, json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_similar_photos_lie_near_each_other_on_one_page_with_thumbnails(photos, tmp_path, capsys):
    rows, _, data = run(photos, tmp_path / "out", thumbnails=9)
    assert [row["image_uri"] for row in rows] == [f"train/{number}.png" for number in range(6)]
    assert [row["label"] for row in rows] == ["red", "red", "green", "green", "blue", ""]
    assert all(re.fullmatch("[0-9a-f]{32}", row["image_sha256"]) for row in rows)
    places = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    for first, second in ((0, 1), (2, 3), (4, 5)):
        apart = np.linalg.norm(places - places[first], axis=1)
        assert np.argsort(apart)[1] == second
    assert len(data["sheets"]) == 1
    assert "6 photos on the map, by principal components" in capsys.readouterr().out


def test_the_same_photos_give_the_same_positions(photos, tmp_path):
    assert run(photos, tmp_path / "a")[0] == run(photos, tmp_path / "b")[0]


def test_a_map_with_more_photos_leaves_the_others_where_they_were(photos, tmp_path, capsys):
    before, _, _ = run(photos, tmp_path / "a")
    more = write_photo_set(tmp_path, "eval", [(200, 200, 10), (60, 60, 60)], [[0], [1]])
    after, page, _ = run(f"{photos},{more}", tmp_path / "b", "--previous", str(tmp_path / "a" / "map.csv"))
    at = {row["image_uri"]: np.array([float(row["x"]), float(row["y"])]) for row in after}
    width = np.ptp([float(row["x"]) for row in before])
    for row in before:
        assert np.linalg.norm(at[row["image_uri"]] - (float(row["x"]), float(row["y"]))) < 0.3 * width
    assert "moved by" in page
    assert "Photos of the earlier map moved by" in capsys.readouterr().out


def test_what_a_model_got_wrong_is_known(photos, tmp_path):
    (tmp_path / "answers.csv").write_text(
        "image_uri,label,score,confident\ntrain/0.png,red,0.9,1\ntrain/1.png,blue,0.8,1\ntrain/5.png,red,0.7,0\n"
    )
    _, page, data = run(photos, tmp_path / "out", "--predictions", str(tmp_path / "answers.csv"))
    assert data["answers"] == ["red", "blue"]
    assert "The predictions are known of 2 labelled photos;\n1 of them is wrong." in page


def test_photos_that_are_gone_have_no_thumbnail_and_are_on_the_map(tmp_path):
    gone = write_photo_set(tmp_path, "train", COLOURS, LABEL_IDS, with_files=False)
    rows, _, data = run(gone, tmp_path / "out", thumbnails=9)
    assert len(rows) == 6
    assert data["sheets"] == []


def test_of_too_many_photos_the_same_ones_are_taken_when_there_are_more(tmp_path):
    some = write_record_set(str(tmp_path / "out" / "a"), np.eye(3, dtype=np.float32).repeat(9, 0), [[0]] * 27)
    more = write_record_set(str(tmp_path / "out" / "b"), np.eye(3, dtype=np.float32), [[0]] * 3)
    few = {row["image_uri"] for row in run(f"{some}*", tmp_path / "1", "--max_photos", "20")[0]}
    rows, page, _ = run(f"{some}*,{more}*", tmp_path / "2", "--max_photos", "20")
    assert len(few) == len(rows) == 20
    assert len(few & {row["image_uri"] for row in rows}) >= 17
    assert "The sets have 30 records." in page


def test_names_of_photos_cannot_break_the_page(tmp_path):
    uris = ["</script><script>alert(1)</script>.jpg", "a/b&amp;\"'.jpg", "ü/日本.jpg", "x.jpg"]
    odd = write_record_set(
        str(tmp_path / "out" / "a"), np.eye(4, 3, dtype=np.float32), [[0]] * 4, labels=["<b>"], uris=uris
    )
    rows, page, data = run(f"{odd}*", tmp_path / "map")
    assert [row["image_uri"] for row in rows] == uris
    assert page.count("</script>") == 2
    assert data["labels"] == ["<b>"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--previous", "nowhere.csv"], r"--previous: cannot read nowhere\.csv"),
        (["--predictions", "nowhere*.csv"], r"--predictions: nothing matches"),
        (["--max_photos", "1"], "--max_photos must be a whole number from 2"),
        (["--reducer", "umap"], "--reducer"),
    ],
)
def test_wrong_options_are_one_line(photos, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        main(["--data_paths", photos, "--output_path", "out", *flags])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("previous", "image_uri,label\na,b\n", "the columns image_uri, x and y are missing"),
        ("previous", "image_uri,image_sha256,x,y\ntrain/0.png,,1,two\n", "line 2: x and y must be numbers"),
        ("previous", "image_uri,image_sha256,x,y\ntrain/0.png,,1,nan\n", "line 2: x and y must be numbers"),
        ("previous", "image_uri,image_sha256,x,y\nother.png,,1,2\n", "has none of the photos"),
        ("predictions", "image_uri,label\ntrain/0.png,red\n", "has the columns image_uri, label, and those of"),
        ("predictions", "image_uri,label,score\ntrain/0.png\n", "line 2: 1 cells"),
        ("predictions", "image_uri,label,score\nother.png,red,1\n", "none of its photos is in --data_paths"),
        ("predictions", "", "has the columns none"),
    ],
)
def test_files_of_something_else_are_one_line(photos, tmp_path, name, text, words):
    (tmp_path / "given.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        main(
            [
                *("--data_paths", photos, "--output_path", str(tmp_path / "out")),
                *(f"--{name}", str(tmp_path / "given.csv")),
            ]
        )


def test_an_earlier_page_is_not_replaced_unasked(photos, tmp_path):
    run(photos, tmp_path)
    with pytest.raises(InputError, match=r"map\.html is there already\. Pass --overwrite"):
        run(photos, tmp_path)
    run(photos, tmp_path, "--overwrite", "--previous", str(tmp_path / "map.csv"))
