from __future__ import annotations

import csv
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from configs.written_tables import SUSPECT_COLUMNS
from insight.audit import main
from tests.support.browser import assert_accessible, chromium, opened_file, reload_until_status
from tests.support.written_sets import COLOURS, write_record_set
from trainer.data.corrected import read_corrections

COUNT, WRONG, UNLABELLED = 60, (4, 21, 47), 5


def embeddings_of(classes, *, seed=0):
    noise = np.random.default_rng(seed).normal(size=(len(classes), 3))
    return (np.eye(3)[classes] + 0.15 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 photos of three classes, of which three have a wrong label and two several labels; five without a label."""
    folder = tmp_path_factory.mktemp("audit")
    right = np.arange(COUNT + UNLABELLED) % 3
    given = [[int(label)] for label in right]
    for row in WRONG:
        given[row] = [int(right[row] + 1) % 3]
    given[10], given[11] = [1, 2], [2, 1, 2]
    given[COUNT:] = [[]] * UNLABELLED
    paths = [f"{folder}/{row}.png" for row in range(len(given))]
    for row, path in enumerate(paths[: COUNT // 2]):  # of the others, the page has no pictures
        Image.fromarray(np.full((8, 8, 3), 3 * row, np.uint8)).save(path)
    contents = [pathlib.Path(path).read_bytes() if row < COUNT // 2 else row for row, path in enumerate(paths)]
    write_record_set(f"{folder}/train", embeddings_of(right), given, uris=paths, contents=contents)
    return folder


def run(prefix, output, *flags):
    assert main(["--data_paths", str(prefix), "--output_path", str(output), *flags]) == 0
    with open(f"{output}/suspects.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def audited(folder):
    return run(folder / "train", folder / "out", "--most", "8")


def test_planted_wrong_labels_come_first_with_the_right_ones_proposed(folder, audited):
    assert tuple(audited[0]) == SUSPECT_COLUMNS and len(audited) == COUNT
    first = {row["image_uri"]: row for row in audited[: len(WRONG)]}
    assert set(first) == {f"{folder}/{row}.png" for row in WRONG}
    for row in WRONG:
        found = first[f"{folder}/{row}.png"]
        assert (found["label"], found["proposed_label"]) == (COLOURS[(row + 1) % 3], COLOURS[row % 3])
        assert float(found["wrong"]) > 0.5 and re.fullmatch("[0-9a-f]{32}", found["image_sha256"])
        assert int(found["neighbours_for"]) <= 2 and found["neighbours_against"].count(".png (") == 5
        assert found["why"].startswith(f"heads and neighbours that did not see this label give '{COLOURS[row % 3]}'")
    probabilities = [float(row["wrong"]) for row in audited]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {"green | blue", "blue | green"} <= {row["label"] for row in audited}


def test_the_numbers_are_printed_and_the_page_is_made(folder, capsys):
    run(folder / "train", folder / "again")
    printed = capsys.readouterr().out
    assert f"without label   {UNLABELLED}, left out" in printed and "probably wrong  3 " in printed
    # No evaluation set and no list lie there, so no command could run: words say what is needed.
    assert "then:   give corrections.csv to the training of these sets, as --corrections: no set named eval" in printed
    assert "or:     correct each list with `hugs relabel`" in printed
    assert "EVAL" not in printed and "TRAINING" not in printed
    page = (folder / "again" / "audit.html").read_text()
    assert page.count("data:image/jpeg") >= COUNT // 2
    assert (folder / "again" / "suspects.csv").read_bytes() == (folder / "out" / "suspects.csv").read_bytes()


def test_a_copy_never_vouches_for_itself(tmp_path, capsys):
    """Six copies of one photo with one wrong label: only with their group is any of them suspicious."""
    right = np.array([0] * 26 + [1] * 20)
    embeddings = embeddings_of(right)
    embeddings[:6] = embeddings[0]
    given = [[1]] * 6 + [[int(label)] for label in right[6:]]
    prefix = write_record_set(f"{tmp_path}/train", embeddings, given, labels=("a", "b", "unused"))
    uris = [f"train/{row}.jpg" for row in range(6)]
    (tmp_path / "twins.csv").write_text("image_uri,group\n" + "".join(f"{uri},7\n" for uri in uris))
    alone = {row["image_uri"]: row for row in run(prefix, tmp_path / "alone")}
    grouped = run(prefix, tmp_path / "grouped", "--group_by", f"{tmp_path}/twins.csv")
    assert {row["image_uri"] for row in grouped[:6]} == set(uris)
    assert all(float(row["wrong"]) > 0.5 > float(alone[row["image_uri"]]["wrong"]) for row in grouped[:6])
    assert all(uri not in row["neighbours_against"] for row in grouped[:6] for uri in uris)
    assert "in groups       6 of " in capsys.readouterr().out
    # Copies of equal content are a group without a table, and a copy with another label is named.
    contents = ["same"] * 6 + list(range(40))
    given[0] = [0]
    write_record_set(prefix, embeddings, given, labels=("a", "b", "unused"), contents=contents)
    found = run(prefix, tmp_path / "content")
    assert {row["image_uri"] for row in found[:5]} == set(uris[1:])
    assert all(row["twin_label"] == "a" and "a copy of this photo has the label 'a'" in row["why"] for row in found[:5])


def test_the_only_photo_of_a_class_is_not_judged(tmp_path, capsys):
    classes = np.array([0] * 12 + [1] * 12 + [2])
    prefix = write_record_set(f"{tmp_path}/train", embeddings_of(classes), [[int(one)] for one in classes])
    last = run(prefix, tmp_path / "out")[-1]
    assert (last["label"], last["wrong"]) == ("blue", "") and last["why"].startswith("not judged")
    assert "not judged      1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0]] * 12, "--data_paths: an audit compares classes, and fewer than two"),
        ([[0], [1], [2]], "--data_paths: an audit compares classes, and fewer than two"),
        ([[0]], "--data_paths: an audit compares classes, and fewer than two"),
        ([[]] * 12, "--data_paths: none of the 12 records has a label"),
        ([[0, 1], [2]] * 6, "--data_paths: 6 of the 12 records have several labels"),
    ],
)
def test_sets_that_cannot_be_audited_are_one_line(tmp_path, given, message):
    embeddings = embeddings_of(np.arange(len(given)) % 3)
    prefix = write_record_set(f"{tmp_path}/train", embeddings, given, num_shards=1)
    with pytest.raises(InputError, match=re.escape(message)):
        run(prefix, tmp_path / "out")


def test_wrong_options_are_one_line(folder, audited, tmp_path):
    tables = {
        "foreign": ("image_uri,group\nother.jpg,1\n", "names none of the 60 photos"),
        "twice": ("a.jpg,1\na.jpg,2\n", "is in two groups, '1' and '2'"),
        "wide": ("a.jpg,1,2\n", "a row must be photo,group"),
        "empty": ("", "empty is empty"),
        "latin": (b"\xff", "as a CSV file"),
    }
    for name, (text, message) in tables.items():
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            run(folder / "train", tmp_path / "out", "--group_by", str(path))
        assert "\n" not in str(caught.value)
    for flags, message in (
        (("--group_by", f"{tmp_path}/gone"), "--group_by: cannot read"),
        (("--most", "0"), "--most"),
        (("--seed", "-1"), "--seed"),
    ):
        with pytest.raises(InputError, match=message):
            run(folder / "train", tmp_path / "out", *flags)
    with pytest.raises(InputError, match="is there already. Pass --overwrite"):
        run(folder / "train", folder / "out")


def test_decisions_by_keys_are_downloaded_as_corrections(folder, audited):
    path = f"{folder}/out/audit.html"
    with chromium() as browser:
        with opened_file(browser, path) as page:
            assert page.get_by_role("button", name="Download").is_disabled()
            for key in "kcruz":  # the last one takes "unsure" back
                page.keyboard.press(key)
            page.get_by_role("status").get_by_text("3 of 8 decided: 1 kept, 1 changed, 1 removed, 0 unsure").wait_for()
            page.keyboard.press("U")
            other = next(label for label in COLOURS if label not in (audited[4]["label"], audited[4]["proposed_label"]))
            page.get_by_label("another label").select_option(other)
            page.get_by_label("your name").fill('Ann "A", B')
            page.keyboard.press("k")  # in the field, a letter is a letter
            page.keyboard.press("Backspace")
            page.get_by_role("status").get_by_text("5 of 8 decided").wait_for()
            reload_until_status(page, "5 of 8 decided")  # the browser has kept them
            assert page.get_by_label("your name").input_value() == 'Ann "A", B'
            page.get_by_role("button", name="Back").click()
            assert page.get_by_label("another label").input_value() == other
            with page.expect_download() as download:
                page.get_by_role("button", name="Download").click()
            saved = f"{folder}/corrections.csv"
            download.value.save_as(saved)
        assert_accessible(browser, path, keys=("k", "ArrowLeft"))
    with open(saved, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image_uri"], row["action"], row["label"]) for row in rows] == [
        (audited[place]["image_uri"], action, label)
        for place, (action, label) in enumerate(
            [("keep", ""), ("change", audited[1]["proposed_label"]), ("remove", ""), ("unsure", ""), ("change", other)]
        )
    ]
    found = read_corrections(saved, labels=COLOURS)
    assert (len(found), found.num_kept, found.num_unsure) == (3, 1, 1)
    assert {entry.by for entry in found} == {'Ann "A", B'}
    change = found.by_digest[bytes.fromhex(audited[1]["image_sha256"])]
    assert change.labels == (audited[1]["proposed_label"],)


def test_a_wrong_name_is_told_before_an_output_that_is_there(tmp_path):
    (tmp_path / "audit.html").touch()
    with pytest.raises(InputError, match="--data_paths: no such record set"):
        main(["--data_paths", str(tmp_path / "trian"), "--output_path", str(tmp_path)])
