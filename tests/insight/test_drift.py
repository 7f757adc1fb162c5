from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

from configs.errors import InputError
from insight.drift import main
from preprocess.images.decode import IMAGE_SIZE, decode_image
from tests.support.browser import assert_accessible, chromium
from tests.support.near_photos import MeanColourEngine
from tests.support.written_sets import COLOURS, MEAN_COLOUR, write_record_set
from trainer.data.dataset import read_dataset
from trainer.data.photos import finder_of_sets
from trainer.data.record_sets import find_record_sets
from trainer.data.training_sketch import sketch_training_set
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo
from trainer.export.sketch_file import SKETCH_PATH, write_sketch

NUM_TRAINING, NUM_NEW = 60, 30


def write_photos(folder, count, *, seed, change=lambda image: image):
    """Photos of blotches in one of three colours; their embeddings, the mean colour; their paths and label ids."""
    os.makedirs(folder)
    random = np.random.default_rng(seed)
    embeddings, paths, label_ids = [], [], []
    for number in range(count):
        label = number % 3
        blotches = random.integers(60, 140, (8, 8, 3))
        blotches[..., label] += 90
        # Large blotches with grain: without the grain there is nothing that a blur could take away.
        grain = random.integers(-20, 21, (64, 64, 1))
        image = Image.fromarray((np.kron(blotches, np.ones((8, 8, 1))) + grain).clip(0, 255).astype(np.uint8))
        path = f"{folder}/{number}.png"
        change(image).save(path)
        with open(path, "rb") as stream:
            pixels = decode_image(stream.read(), size=IMAGE_SIZE)
        embeddings.append(pixels.mean(axis=(0, 1)) / 255)
        paths.append(path)
        label_ids.append([label])
    return np.array(embeddings, np.float32), paths, label_ids


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    embeddings, paths, label_ids = write_photos(f"{folder}/photos", NUM_TRAINING, seed=0)
    prefix = write_record_set(f"{folder}/sets/train", embeddings, label_ids, uris=paths, contents=[None] * NUM_TRAINING)
    sets = find_record_sets([prefix], flag="x")
    data = read_dataset(sets, flag="x")
    sketch = sketch_training_set(data, finder_of_sets(sets, [str(folder)]), image_size=IMAGE_SIZE, max_statistics=40)
    assert len(sketch.statistics) == 40
    model = folder / "model"
    write_sketch(str(model), sketch)
    info = ModelInfo(labels=COLOURS, backbone=MEAN_COLOUR, head_digest="sha256:0")
    (model / MODEL_INFO_PATH).write_text(json.dumps(info.to_json()))
    return str(model)


@pytest.fixture
def drift_of(model_dir, tmp_path, capsys):
    def run(embeddings, paths, label_ids=None, *flags):
        prefix = write_record_set(
            str(tmp_path / "new"),
            embeddings,
            label_ids or [[]] * len(paths),
            uris=paths,
            contents=[None] * len(paths),
            num_shards=1,
        )
        words = ["--model_dir", model_dir, "--data_paths", prefix, "--output_path", str(tmp_path / "out")]
        code = main([*words, "--photo_dirs", str(tmp_path), *flags])
        result = json.loads((tmp_path / "out" / "drift.json").read_text())
        with open(tmp_path / "out" / "drift.csv", newline="") as stream:
            table = list(csv.DictReader(stream))
        return code, result, table, (tmp_path / "out" / "drift.html").read_text(), capsys.readouterr().out

    return run


def test_photos_like_those_of_the_training_are_no_drift(drift_of, tmp_path):
    embeddings, paths, label_ids = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=1)
    code, result, table, page, printed = drift_of(embeddings, paths, label_ids, "--fail_on_drift")
    assert code == 0 and not result["drift"] and result["cause"] is None
    assert printed.startswith("No drift seen: the 30 new photos differ")
    assert result["photos_read"] == NUM_NEW and set(result["p_values"]) >= {"mmd", "new_group", "photo_statistics"}
    assert sorted(row["image_uri"] for row in table) == sorted(paths)
    assert (
        page.count("data:image/jpeg") == 20 and "No drift seen" in page and "The least usual of the new photos" in page
    )


CHANGES = {
    "darker": (lambda image: image.point(lambda value: value * 0.4), "photos", "darker"),
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(1)), "photos", "more blurred"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photos_are_drift_with_the_cause(change, drift_of, tmp_path):
    make, cause, words = CHANGES[change]
    embeddings, paths, _ = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=2, change=make)
    code, result, table, page, printed = drift_of(embeddings, paths, None, "--fail_on_drift")
    assert code == 1 and result["drift"] and result["cause"] == cause
    assert words in result["cause_words"] and words in page and printed.startswith("DRIFT: ")
    assert len(table) == NUM_NEW and "The photos behind it" in page


def test_the_page_breaks_no_rule_of_accessibility(drift_of, tmp_path):
    embeddings, paths, _ = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=2, change=CHANGES["darker"][0])
    drift_of(embeddings, paths)
    with chromium() as browser:
        assert_accessible(browser, f"{tmp_path}/out/drift.html")


def test_a_group_of_photos_of_a_new_class_is_named_and_comes_first(drift_of, tmp_path):
    embeddings, paths, _ = write_photos(f"{tmp_path}/photos", 2 * NUM_NEW, seed=3)
    embeddings[:16] = [0.9, 0.9, 0.05] + 0.01 * np.random.default_rng(0).normal(size=(16, 3))
    _, result, table, _, _ = drift_of(embeddings, paths, None, "--alarm_level", "0.1")
    assert result["drift"] and result["p_values"]["new_group"] <= 0.05
    assert result["cause"] == "new_class" and "class that the model does not know" in result["cause_words"]
    assert len({row["image_uri"] for row in table[:16]} & set(paths[:16])) >= 12


def test_classes_that_became_more_frequent_are_named(drift_of, tmp_path):
    embeddings, paths, label_ids = write_photos(f"{tmp_path}/photos", 3 * NUM_NEW, seed=4)
    reds = [row for row, ids in enumerate(label_ids) if ids == [0]]
    _, result, _, _, _ = drift_of(embeddings[reds], [paths[row] for row in reds])
    assert result["drift"] and any(words.startswith("red 33% → 100%") for words in result["class_mix"])


def test_without_photos_brightness_is_not_compared_and_that_is_said(drift_of, tmp_path):
    embeddings, paths, _ = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=1)
    for path in paths:
        os.remove(path)
    _, result, _, page, printed = drift_of(embeddings, paths)
    assert "photo_statistics" not in result["p_values"]
    assert "brightness, blur and colours were not compared" in printed
    assert page.count("photo not available") == 20


@pytest.fixture
def drift_of_photos(model_dir, tmp_path, capsys, monkeypatch):
    """Runs the program on the photos themselves."""

    class Engine(MeanColourEngine):
        def start(self, pixels, brightness=None):
            return super().start(pixels / np.float32(255))

    monkeypatch.setattr("insight.queries.query_photos.load_engine", lambda *_: Engine())

    def run(*words):
        code = main(["--model_dir", model_dir, "--output_path", str(tmp_path / "out"), "--input_path", *words])
        result = json.loads((tmp_path / "out" / "drift.json").read_text())
        with open(tmp_path / "out" / "drift.csv", newline="") as stream:
            table = list(csv.DictReader(stream))
        return code, result, table, (tmp_path / "out" / "drift.html").read_text(), capsys.readouterr()

    return run


def test_a_folder_of_photos_is_compared_as_the_records_of_the_same_photos_are(drift_of, drift_of_photos, tmp_path):
    embeddings, paths, _ = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=2, change=CHANGES["darker"][0])
    _, of_records, _, _, _ = drift_of(embeddings, paths)
    code, result, table, page, printed = drift_of_photos(f"{tmp_path}/photos", "--fail_on_drift", "--overwrite")
    assert code == 1 and result["cause"] == "photos" and "darker" in result["cause_words"]
    assert (result["new_photos"], result["photos_read"], result["failed"]) == (NUM_NEW, NUM_NEW, [])
    assert set(result["p_values"]) == set(of_records["p_values"])
    assert sorted(row["location"] for row in table) == sorted(paths) and all(row["image_sha256"] for row in table)
    assert page.count("data:image/jpeg") == 20 and printed.err == ""


def test_photos_of_a_list_and_those_that_cannot_be_read_are_counted_and_named(drift_of_photos, tmp_path):
    _, paths, _ = write_photos(f"{tmp_path}/photos", NUM_NEW, seed=1)
    with open(tmp_path / "photos" / "broken.png", "wb") as stream:
        stream.write(b"no photo")
    names = [os.path.basename(path) for path in paths]
    (tmp_path / "photos" / "new.csv").write_text("".join(f"{name}\n" for name in ["broken.png", "gone.png", *names]))
    _, result, table, page, printed = drift_of_photos(f"{tmp_path}/photos/new.csv")
    assert (result["new_photos"], result["photos_compared"]) == (NUM_NEW + 2, NUM_NEW)
    assert sorted(row["image_uri"] for row in table) == sorted(names)
    failed = {os.path.basename(one["location"]): one["message"] for one in result["failed"]}
    assert set(failed) == {"broken.png", "gone.png"} and "not_found" in failed["gone.png"]
    assert printed.err.count("error: ") == 2 and "2 photos could not be read" in printed.out
    assert "2 of them could not be read" in page


def test_photos_with_the_same_content_count_once(drift_of_photos, tmp_path):
    write_photos(f"{tmp_path}/photos", NUM_NEW, seed=1)
    for number in range(20):
        shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / f"copy-{number}.png")
    _, result, _, _, _ = drift_of_photos(f"{tmp_path}/photos")
    assert (result["photos_compared"], result["photos_repeated"]) == (NUM_NEW, 20) and not result["drift"]


def test_photos_that_cannot_be_compared_are_one_line(drift_of_photos, model_dir, tmp_path, monkeypatch):
    write_photos(f"{tmp_path}/photos", 5, seed=1)
    with pytest.raises(InputError, match=r"--input_path: names 5 photos; to compare, 20 or more are needed"):
        drift_of_photos(f"{tmp_path}/photos")
    with pytest.raises(InputError, match=r"20 photos could not be read, and 0 photos could.* The first: .*not_found"):
        drift_of_photos(*(f"{tmp_path}/gone-{number}.png" for number in range(20)))
    with pytest.raises(InputError, match="--input_path: there is no file or folder '.*typo'"):
        drift_of_photos(f"{tmp_path}/photos", f"{tmp_path}/typo")
    for words in (["--data_paths", "x", "--input_path", "y"], []):
        with pytest.raises(InputError, match=r"Pass the new photos as --input_path, or .*; one of the two"):
            main(["--model_dir", model_dir, "--output_path", str(tmp_path / "out"), *words])
    with pytest.raises(InputError, match="--weights: belongs to --input_path"):
        main(["--model_dir", model_dir, "--output_path", str(tmp_path / "out"), "--data_paths", "x", "--weights", "y"])

    def refuse(*_):
        raise InputError("no such weights.")

    monkeypatch.setattr("insight.queries.query_photos.check_weights", refuse)
    write_photos(f"{tmp_path}/more", 20, seed=1)
    with pytest.raises(InputError, match="no such weights"):
        drift_of_photos(f"{tmp_path}/more")


def test_wrong_input_is_one_line(drift_of, model_dir, tmp_path):
    embeddings = np.zeros((5, 3), np.float32)
    with pytest.raises(InputError, match=r"without .*, the new photos are 5 photos; to compare, 20 or more are needed"):
        drift_of(embeddings, [f"{row}.jpg" for row in range(5)])
    os.rename(f"{model_dir}/{SKETCH_PATH}", f"{model_dir}/gone")
    try:
        with pytest.raises(InputError, match=r"earlier version, which did not write .*training_sketch\.npz"):
            drift_of(embeddings, [f"{row}.jpg" for row in range(5)])
    finally:
        os.rename(f"{model_dir}/gone", f"{model_dir}/{SKETCH_PATH}")
