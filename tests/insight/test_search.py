"""`hugs search`: by a photo and by a URI, with an index and without."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from insight.search import main
from tests.support.near_photos import MeanColourEngine, write_photo_set
from tests.support.written_sets import write_record_set

COLOURS = [(250, 10, 10), (240, 60, 20), (10, 240, 10), (20, 250, 60), (10, 10, 240), (60, 20, 250)]
LABEL_IDS = [[0], [0], [1], [1], [2], []]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def photos(folder):
    return write_photo_set(folder, "train", COLOURS, LABEL_IDS)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    made = MeanColourEngine()
    monkeypatch.setattr("insight.queries.query_photos.load_engine", lambda *_: made)
    return made


def answers(capsys, *words):
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def new_photo(folder, colour=(255, 0, 0), name="new.png"):
    Image.new("RGB", (20, 20), colour).save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("indexed", [False, True])
def test_the_nearest_photos_of_a_photo(photos, folder, tmp_path, capsys, indexed):
    more = ["--index", str(tmp_path / "index")] if indexed else []
    (found,) = answers(capsys, new_photo(tmp_path), "--data_paths", photos, "--count", "3", *more)
    assert [near["image_uri"] for near in found["nearest"]] == ["train/0.png", "train/1.png", "train/5.png"]
    assert [near["labels"] for near in found["nearest"]] == [["red"], ["red"], []]
    first, second = (near["similarity"] for near in found["nearest"][:2])
    assert first == pytest.approx(250 / np.linalg.norm(COLOURS[0]), abs=1e-3)
    assert first > second
    assert not any(near["same_file"] for near in found["nearest"])
    (same,) = answers(capsys, str(folder / "train" / "2.png"), "--data_paths", photos, "--count", "1", *more)
    assert same["nearest"][0]["image_uri"] == "train/2.png"
    assert same["nearest"][0]["same_file"]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_photo_of_the_set_needs_no_network_and_does_not_find_itself(photos, tmp_path, capsys, monkeypatch, indexed):
    monkeypatch.setattr("insight.queries.query_photos.load_engine", None)
    more = ["--index", str(tmp_path / "index")] if indexed else []
    flags = ["--image_uri", "train/2.png", "--data_paths", photos]
    (found,) = answers(capsys, *flags, "--count", "10", *more)
    assert found["nearest"][0]["image_uri"] == "train/3.png"
    assert len(found["nearest"]) == 5
    with pytest.raises(InputError, match=r"--image_uri: no record of --data_paths has the URI 'train/9\.png'"):
        main(["--image_uri", "train/9.png", "--data_paths", photos, *more])
    for meant in ("3.png", "../3.png", "./3.png"):
        with pytest.raises(InputError, match=r"Do you mean 'train/3\.png', as the list has it\?"):
            main(["--image_uri", meant, "--data_paths", photos, *more])


def test_an_index_is_used_again_and_extended(photos, tmp_path, capsys):
    index = str(tmp_path / "index")
    flags = ["--image_uri", "train/0.png", "--index", index, "--data_paths"]
    main([*flags, photos])
    assert "index: made, 6 photos" in capsys.readouterr().err
    main([*flags, photos])
    assert capsys.readouterr().err == ""
    more = write_photo_set(tmp_path, "eval", [(251, 9, 9)], [[2]])
    main([*flags, f"{photos},{more}"])
    printed = capsys.readouterr()
    assert "index: extended, 7 photos" in printed.err
    assert printed.out.splitlines()[1].split() == ["1.000", "blue", "eval/0.png"]
    # A set that is gone is not found any more.
    main([*flags, photos])
    printed = capsys.readouterr()
    assert "index: made, 6 photos" in printed.err
    assert "eval" not in printed.out
    assert len(list((tmp_path / "index").iterdir())) == 3


def test_a_photo_that_cannot_be_read_is_reported_and_the_others_are_answered(photos, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    good = new_photo(tmp_path)
    assert main(["missing.jpg", good, str(tmp_path / "broken.jpg"), "--data_paths", photos]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{good}\n")
    assert len(re.findall(r"(?m)^error: ", printed.err)) == 2
    assert main(["missing.jpg", "--data_paths", photos]) == 2
    assert capsys.readouterr().out == ""


def test_another_network_is_refused(photos, tmp_path, engine):
    engine.identity = MeanColourEngine.identity.__class__(
        **{**vars(MeanColourEngine.identity), "weights_digest": "sha256:1"}
    )
    with pytest.raises(InputError, match=r"--weights: the records of .* were made with another network"):
        main([new_photo(tmp_path), "--data_paths", photos])


def test_weights_that_are_not_here_are_one_line(tmp_path, monkeypatch):
    known = MeanColourEngine.identity
    identity = known.__class__(**{**vars(known), "weights": "/no/such/weights.h5", "seed": None})
    prefix = write_record_set(str(tmp_path / "out" / "a"), np.eye(3, dtype=np.float32), [[0]] * 3, identity=identity)
    with pytest.raises(InputError, match=r"cannot be loaded here\. .*/no/such/weights\.h5.* pass --weights FILE"):
        main([new_photo(tmp_path), "--data_paths", f"{prefix}*"])


def test_the_page_has_the_photo_and_those_found(photos, tmp_path, capsys):
    name = new_photo(tmp_path, name="<b>&.png")
    assert main([name, "--data_paths", photos, "--output_path", str(tmp_path / "out"), "--count", "4"]) == 0
    page = (tmp_path / "out" / "search.html").read_text()
    assert page.count('src="data:image/jpeg') == 5
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>&.png" not in page
    with pytest.raises(InputError, match="--overwrite"):
        main([name, "--data_paths", photos, "--output_path", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Pass a photo to search with, or --image_uri"),
        (["a.jpg", "--count", "0"], "--count must be a whole number from 1 to 1000"),
        (["a.jpg", "--index", "gs://bucket/index"], "--index: must be a folder of this machine"),
        (["a.jpg", "--overwrite"], "--overwrite: belongs to --output_path"),
    ],
)
def test_wrong_options_are_one_line(photos, words, message):
    with pytest.raises(InputError, match=message):
        main([*words, "--data_paths", photos])
