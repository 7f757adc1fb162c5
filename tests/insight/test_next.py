from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from insight.next import main
from tests.support.browser import assert_accessible, chromium, opened_file, reload_until_status
from tests.support.written_sets import write_record_set

NUM_LABELLED, NUM_UNLABELLED = 30, 40


def write_sets(folder, *, num_labelled=NUM_LABELLED):
    """A labelled set, and one without labels, whose photos are there; the first of it is a copy of a labelled one."""
    random = np.random.default_rng(0)
    classes = np.arange(NUM_LABELLED + NUM_UNLABELLED) % 3
    vectors = (np.eye(3)[classes] + 0.2 * random.normal(size=(len(classes), 3))).astype(np.float32)
    labelled = write_record_set(
        f"{folder}/train", vectors[:num_labelled], [[label] for label in classes[:num_labelled]], contents=range(100)
    )
    paths = []
    for row in range(NUM_UNLABELLED):
        paths.append(f"{folder}/{row}.png")
        Image.fromarray(np.full((8, 8, 3), row, np.uint8)).save(paths[-1])
    pool = write_record_set(
        f"{folder}/pool",
        vectors[NUM_LABELLED:],
        [[]] * NUM_UNLABELLED,
        uris=paths,
        contents=[0, *[None] * (NUM_UNLABELLED - 1)] if num_labelled else None,
    )
    return f"{labelled},{pool}" if num_labelled else pool


def run(paths, folder, *flags):
    assert main(["--data_paths", paths, "--n", "6", "--output_path", f"{folder}/out", *flags]) == 0
    with open(f"{folder}/out/next.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    with open(f"{folder}/out/next.json") as stream:
        return table, json.load(stream)


def test_photos_are_chosen_with_reasons_and_the_gain_is_expected(tmp_path, capsys):
    table, result = run(write_sets(tmp_path), tmp_path)
    assert len(table) == 6 == result["chosen"] and result["copies_left_out"] == 1
    assert (result["labelled"], result["unlabelled"]) == (NUM_LABELLED, NUM_UNLABELLED - 1)
    assert f"{tmp_path}/0.png" not in {row["image_uri"] for row in table}
    assert all(row["label"] == "" and row["proposed_label"] in ("red", "green", "blue") for row in table)
    assert all(" or " in row["why"] for row in table)
    assert sum(int(row["stands_for"]) for row in table) == NUM_UNLABELLED - 1
    printed = capsys.readouterr().out
    assert "6 photos to label next, of 39 without a label (1 copy of other photos left out); 30 have one." in printed
    assert "With 6 more labels it should be about" in printed and "then:    give labels.csv to" in printed
    page = (tmp_path / "out" / "next.html").read_text()
    assert page.count("<select") == 6 and page.count("data:image/jpeg") == 6


def test_the_next_time_says_whether_the_expectation_came_true(tmp_path, capsys):
    paths = write_sets(tmp_path)
    run(paths, tmp_path)
    saved = tmp_path / "out" / "next.json"
    before = json.loads(saved.read_text())
    saved.write_text(json.dumps(before | {"labelled": 20, "chosen": 10}))
    _, result = run(paths, tmp_path, "--overwrite")
    printed = capsys.readouterr().out
    assert "Last time, 20 photos had labels, and about" in printed and "Now 30 have labels" in printed
    assert result["previous"]["chosen"] == 10
    saved.write_text("{}")
    with pytest.raises(InputError, match=r"--previous: .*next\.json is not a next\.json that this program wrote"):
        run(paths, tmp_path, "--overwrite")
    with pytest.raises(InputError, match="--previous: cannot read"):
        run(paths, tmp_path, "--overwrite", "--previous", str(tmp_path / "gone"))


def test_without_any_label_photos_are_spread_over_all(tmp_path, capsys):
    table, result = run(write_sets(tmp_path, num_labelled=0), tmp_path)
    assert result["labelled"] == 0 and result["expected_gain"] is None and len(table) == 6
    assert all(row["proposed_label"] == row["score"] == "" for row in table)
    assert "cannot be said yet" in capsys.readouterr().out


def test_where_all_have_labels_that_is_one_line(tmp_path):
    paths = write_sets(tmp_path).split(",")[0]
    with pytest.raises(InputError, match="none of the 30 records is a photo without a label"):
        run(paths, tmp_path)


def test_labels_are_given_by_keys_or_choice_and_saved(tmp_path):
    table, _ = run(write_sets(tmp_path), tmp_path)
    path = f"{tmp_path}/out/next.html"
    with chromium() as browser:
        with opened_file(browser, path) as page:
            assert page.get_by_role("button", name="Save").is_disabled()
            page.get_by_label("label of photo 1", exact=True).focus()
            page.keyboard.press("3")
            page.keyboard.press("1")  # The next photo has the focus now.
            assert page.get_by_label("label of photo 3").evaluate("one => one === document.activeElement")
            assert "a digit gives the label of that number and goes on" in page.content()
            page.get_by_label("label of photo 4").select_option("not a photo to learn from")
            page.get_by_label("Your name").fill('Ann "A", B')
            page.get_by_role("status").get_by_text("3 of 6 labelled").wait_for()
            reload_until_status(page, "3 of 6 labelled")  # The browser has kept them.
            assert page.get_by_label("label of photo 2", exact=True).input_value() == "0"
            assert page.get_by_label("Your name").input_value() == 'Ann "A", B'
            page.get_by_label("label of photo 5").select_option("green")
            page.get_by_label("label of photo 5").select_option("label?")  # taken back
            with page.expect_download() as download:
                page.get_by_role("button", name="Save").click()
            assert download.value.suggested_filename == "labels.csv"  # The page of an audit saves corrections.csv.
            with open(download.value.path(), newline="") as stream:
                rows = list(csv.DictReader(stream))
        assert [(row["image_uri"], row["action"], row["label"], row["by"]) for row in rows] == [
            (table[0]["image_uri"], "change", "blue", 'Ann "A", B'),
            (table[1]["image_uri"], "change", "red", 'Ann "A", B'),
            (table[3]["image_uri"], "remove", "", 'Ann "A", B'),
        ]
        assert_accessible(browser, path)


def test_photos_that_are_there_twice_do_not_raise_the_accuracy(tmp_path):
    once, pool = write_sets(tmp_path).split(",")
    _, plain = run(f"{once},{pool}", tmp_path)
    (tmp_path / "more").mkdir()
    again = write_sets(tmp_path / "more").split(",")[0]
    _, twice = run(f"{once},{again},{pool}", tmp_path, "--overwrite")
    assert twice["labelled"] == 2 * plain["labelled"]
    assert abs(twice["expected_gain"]["accuracy"] - plain["expected_gain"]["accuracy"]) < 0.02
