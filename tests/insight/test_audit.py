"""hugs audit: the table, the page in a real browser, and wrong input."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from insight import audit
from preprocess.lists.corrections import parse_corrections
from tests.support.written_sets import COLOURS, write_record_set

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 photos of three classes, of which photo 4 has the wrong label, photo 7 none, and photo 9 is also photo 12."""
    folder = tmp_path_factory.mktemp("audit")
    random = np.random.default_rng(0)
    embeddings = random.normal(0, 0.3, (COUNT, 3)).astype(np.float32)
    embeddings[np.arange(COUNT), np.arange(COUNT) % 3] += 2
    ids = [[row % 3] for row in range(COUNT)]
    ids[4], ids[7], ids[12] = [0], [], [2]
    uris = [f"{folder}/{row} <b>.jpg" for row in range(COUNT)]
    for row in range(3):
        Image.fromarray(np.full((20, 30, 3), 80 * row, np.uint8)).save(uris[row])
    contents = [9 if row == 12 else row for row in range(COUNT)]
    contents[0] = contents[1] = contents[2] = None  # of these no digest is known, so the files are shown as they are
    write_record_set(str(folder / "train"), embeddings, ids, uris=uris, contents=contents)
    return folder


def run(folder, *more, output="out"):
    return audit.main(["--data_paths", f"{folder}/train", "--output_path", f"{folder}/{output}", *more])


@pytest.fixture(scope="module")
def audited(folder):
    assert not run(folder)
    return folder / "out"


def test_the_table_has_every_photo_with_a_label_and_the_wrong_one_first(audited, folder, capsys):
    rows = list(csv.DictReader((audited / "suspects.csv").open(newline="")))
    assert len(rows) == COUNT - 1 and all("/7 <b>" not in row["image_uri"] for row in rows)
    assert {rows[0]["image_uri"], rows[1]["image_uri"]} == {f"{folder}/4 <b>.jpg", f"{folder}/12 <b>.jpg"}
    row = next(row for row in rows if "/4 <b>" in row["image_uri"])
    assert (row["label"], row["proposed_label"]) == ("red", "green") and len(row["image_sha256"]) == 32
    assert "have the label 'red' and" in row["why"] and "(green)" in row["neighbours_against"]
    twin = next(row for row in rows if "/12 <b>" in row["image_uri"])
    assert twin["twin_label"] == "red" and "a copy of this photo has the label 'red'" in twin["why"]
    first = (audited / "suspects.csv").read_bytes()
    assert not run(folder, "--overwrite")
    assert (audited / "suspects.csv").read_bytes() == first
    assert "without label   1, left out" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium on this machine")
def test_decisions_by_keys_become_corrections(audited, tmp_path, scheme):
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    faults = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        for viewport in ({"width": 1200, "height": 900}, {"width": 390, "height": 844}):
            page = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True).new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda line: faults.append(line.text))
            page.goto(f"file://{audited}/audit.html")
            assert "Which labels are wrong?" in page.inner_text("h1")
            assert "<b>" in page.inner_text("#uri") and page.locator("#near li").count() == 6
            assert page.locator("#photo .blank").count() == 1  # This photo cannot be read.
            for key in "ckruz":
                page.keyboard.press(key)
            page.select_option("#other", "blue")
            page.fill("#by", 'Ada, "A"')
            words = page.inner_text("#progress-words")
            assert words == f"4 of {COUNT - 1} decided: 1 kept, 2 changed, 1 removed, 0 unsure"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert axe.Axe().run(page).response["violations"] == []
            with page.expect_download() as download:
                page.click("#download")
            download.value.save_as(tmp_path / "corrections.csv")
        browser.close()
    assert faults == []
    found = parse_corrections((tmp_path / "corrections.csv").read_bytes(), path="c", labels=COLOURS)
    assert len(found) == 3 and found.num_kept == 1 and {entry.by for entry in found} == {'Ada, "A"'}


def test_a_file_of_groups_is_read_and_what_is_wrong_with_it_is_one_line(folder, tmp_path, capsys):
    groups = tmp_path / "twins.csv"
    groups.write_text(f"image_uri,image_sha256,group\n{folder}/4 <b>.jpg,,a\n{folder}/5 <b>.jpg,,a\n")
    assert not run(folder, "--group_by", str(groups), output="grouped")
    assert "in groups       2 of" in capsys.readouterr().out
    for text, said in (
        ("image_uri,group\nelsewhere.jpg,a\n", "names none of the 59 photos"),
        ("image_uri,group\nx,a\nx,b\n", "twins.csv:3: 'x' is in two groups, 'a' and 'b'"),
        ("x,a,b\n", "twins.csv:1: a row must be photo,group"),
    ):
        groups.write_text(text)
        with pytest.raises(InputError, match=said):
            run(folder, "--group_by", str(groups), output="refused")
    with pytest.raises(InputError, match="--group_by: cannot read .*missing.csv"):
        run(folder, "--group_by", f"{tmp_path}/missing.csv", output="refused")
    with pytest.raises(InputError, match="suspects.csv is there already"):
        run(folder, output="grouped")


@pytest.mark.parametrize(
    ("ids", "said"),
    [([[]] * 9, "has a label, so none can be wrong"), ([[0, 1]] * 9, "9 of the 9 records have several labels")],
)
def test_sets_without_or_with_several_labels_are_one_line(tmp_path, ids, said):
    write_record_set(str(tmp_path / "train"), np.ones((9, 3), np.float32), ids)
    with pytest.raises(InputError, match=said):
        run(tmp_path)
