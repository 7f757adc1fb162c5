"""`hugs twins`: copies that were planted are found, by each of the three ways, and told."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from configs.errors import InputError
from insight import twins
from preprocess.images.perceptual_hash import mirrored
from preprocess.records.twin_groups import parse_twin_groups
from tests.support.browser import assert_accessible, chromium
from tests.support.written_sets import MEAN_COLOUR, write_record_set

SIZE = 64
IDENTITY = dataclasses.replace(MEAN_COLOUR, embedding_size=SIZE)
COUNT = 120


def photos(seed=0):
    """Embeddings and hashes of unlike photos in three classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, SIZE))
    labels = np.arange(COUNT) % 3
    embeddings = (3 + centres[labels] + rng.normal(size=(COUNT, SIZE))).astype(np.float32)
    return embeddings, rng.integers(0, 256, (COUNT, 32), np.uint8), labels


def write_set(path, embeddings, image_hashes, labels, contents):
    write_record_set(
        str(path),
        embeddings,
        [[int(label)] for label in labels],
        identity=IDENTITY,
        contents=contents,
        image_hashes=image_hashes,
    )


@pytest.fixture
def sets(tmp_path):
    """Writes a training set, and an evaluation set with copies of its photos 0 to 5 at its end."""

    def write(*, hashes=True, flip=lambda labels: labels):
        embeddings, image_hashes, labels = photos()
        # 110 is a brightened copy of 6.
        image_hashes[110] = image_hashes[6]
        image_hashes[110, :3] ^= 1
        embeddings[110] = embeddings[6] + 0.1
        labels[110] = labels[6]
        contents = [("train", row) for row in range(COUNT)]
        write_set(tmp_path / "train", embeddings, image_hashes if hashes else None, labels, contents)
        more, of_more, more_labels = photos(seed=1)
        more[114:] = embeddings[:6] + np.random.default_rng(2).normal(scale=0.05, size=(6, SIZE))
        more_labels[114:] = flip(labels[:6].copy())
        of_more[114:116] = image_hashes[:2]
        of_more[115, 4] ^= 7  # 1 is re-encoded, 0 an equal file.
        of_more[116:118] = mirrored(image_hashes[2:4])
        others = [("eval", row) for row in range(COUNT)]
        others[114] = ("train", 0)
        write_set(tmp_path / "eval", more, of_more if hashes else None, more_labels, others)
        return [f"{tmp_path}/train*", f"{tmp_path}/eval*"]

    return write


def run(folder, paths, *more):
    assert twins.main(["--data_paths", ",".join(paths), "--output_path", str(folder / "out"), *more]) == 0
    with open(folder / "out" / "twins.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def groups_of(rows):
    found = {}
    for row in rows:
        found.setdefault(row["group"], {})[row["image_uri"]] = row["kind"]
    return list(found.values())


def test_the_page_breaks_no_rule_of_accessibility(tmp_path, sets):
    run(tmp_path, sets())
    with chromium() as browser:
        assert_accessible(browser, f"{tmp_path}/out/twins.html")


def test_copies_of_each_kind_are_found_and_leaks_are_named(tmp_path, sets, capsys):
    rows = run(tmp_path, sets())
    assert sorted(groups_of(rows), key=str) == [
        {"eval/114.jpg": "first", "train/0.jpg": "equal"},
        {"eval/115.jpg": "first", "train/1.jpg": "copy"},
        {"eval/116.jpg": "first", "train/2.jpg": "mirrored"},
        {"eval/117.jpg": "first", "train/3.jpg": "mirrored"},
        {"eval/118.jpg": "first", "train/4.jpg": "similar"},
        {"eval/119.jpg": "first", "train/5.jpg": "similar"},
        {"train/6.jpg": "first", "train/110.jpg": "copy"},
    ]
    # Groups in several sets come first, and numbers are those of the page.
    assert groups_of(rows)[-1] == {"train/6.jpg": "first", "train/110.jpg": "copy"}
    copy = next(row for row in rows if row["image_uri"] == "train/1.jpg")
    assert (copy["hash_bits"], copy["set"], copy["label"]) == ("3", "train", "green")
    assert float(copy["similarity"]) > 0.9 and len(copy["image_sha256"]) == 32
    printed = capsys.readouterr().out
    assert "14 photos of 240 in 7 groups of copies" in printed
    assert (
        "warning: eval and train share photos: 6 of eval and 6 of train, such as eval/114.jpg and train/0.jpg"
        in printed
    )
    assert "labels" not in printed
    table = parse_twin_groups((tmp_path / "out/twins.csv").read_bytes(), path="t", flag="f")
    assert len(table.by_digest) == 13 and not table.by_uri  # The equal files have one digest.


def test_labels_that_contradict_are_marked_and_come_first(tmp_path, sets, capsys):
    def flip(labels):
        labels[4] = (labels[4] + 1) % 3
        return labels

    rows = run(tmp_path, sets(flip=flip))
    assert groups_of(rows)[0] == {"eval/118.jpg": "first", "train/4.jpg": "similar"}
    assert "warning: 1 group has photos with different labels" in capsys.readouterr().out
    page = (tmp_path / "out/twins.html").read_text()
    assert page.count("labels differ</span></h3>") == 1 and "no picture" in page
    assert page.count(", perhaps copies") == 2 and "2 groups are alike only" in page
    assert "6 photos of eval and 6 photos of train are in the\nsame groups" in page
    assert "default-src 'none'" in page and "<script" not in page


def test_sets_without_hashes_are_compared_by_their_embeddings(tmp_path, sets, capsys):
    rows = run(tmp_path, sets(hashes=False))
    assert len(groups_of(rows)) == 7
    assert {row["kind"] for row in rows} == {"first", "equal", "similar"}
    assert {row["hash_bits"] for row in rows} == {""}
    assert "hashes: 240 photos of 240 have none" in capsys.readouterr().out
    with pytest.raises(InputError, match="--embeddings: the records of these sets have no perceptual hashes"):
        run(tmp_path, [f"{tmp_path}/train*"], "--embeddings", "off", "--overwrite")


def test_without_embeddings_crops_are_not_found_and_that_is_said(tmp_path, sets, capsys):
    rows = run(tmp_path, sets(), "--embeddings", "off")
    assert len(groups_of(rows)) == 5 and "similar" not in {row["kind"] for row in rows}
    assert "embeddings: not compared, so crops are not found" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_sets_of_few_photos_and_of_one_colour(tmp_path, count, capsys):
    embeddings = np.random.default_rng(0).normal(size=(count, SIZE)).astype(np.float32)
    path = str(tmp_path / "train")
    write_record_set(
        path,
        embeddings,
        [[]] * count,
        identity=IDENTITY,
        num_shards=1,
        contents=[None] * count,
        image_hashes=np.zeros((count, 32), np.uint8),
    )
    assert run(tmp_path, [path]) == []
    assert f"no copies among {count} photo" in capsys.readouterr().out
    assert "is a copy of another one" in (tmp_path / "out/twins.html").read_text()


def test_files_that_are_there_stay_unless_overwritten(tmp_path, sets):
    paths = sets()
    run(tmp_path, paths)
    before = (tmp_path / "out/twins.csv").read_bytes()
    with pytest.raises(InputError, match=r"twins\.csv is there already\. Pass --overwrite"):
        run(tmp_path, paths)
    run(tmp_path, paths, "--overwrite")
    assert (tmp_path / "out/twins.csv").read_bytes() == before
