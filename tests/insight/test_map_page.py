"""The page of `hugs map` in a real browser: Chromium of the system, without a window, driven by Playwright."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest

from insight.map import main
from tests.support.browser import CHROMIUM, axe_script
from tests.support.near_photos import write_photo_set

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
# Look at the pictures of the page in this folder.
_PICTURES = os.environ.get("HUGS_TEST_PICTURES")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    random = np.random.default_rng(0)
    base = np.eye(3).repeat(6, 0) * 200
    photos = write_photo_set(folder, "train", base + random.integers(0, 50, (18, 3)), [[row // 6] for row in range(18)])
    answers = "".join(
        f"train/{row}.png,{'red' if row < 7 else 'green' if row < 12 else 'blue'},1\n" for row in range(18)
    )
    (folder / "answers.csv").write_text(f"image_uri,label,score\n{answers}")
    flags = ["--data_paths", photos, "--output_path", str(folder / "out"), "--reducer", "pca", "--thumbnails", "9"]
    assert main([*flags, "--predictions", str(folder / "answers.csv")]) == 0
    return folder / "out" / "map.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, page_path):
    """Opens the page; whatever it asks of hosts, and each error in it, fails the test."""
    contexts, faults = [], []

    def open_page(viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        page.on("request", lambda asked: faults.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(page_path.as_uri())
        page.wait_for_function("window.photoMap !== undefined")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def state(page):
    return page.evaluate("photoMap.state()")


def at(page, row):
    """Where a photo is on the page, in pixels."""
    page.locator("#canvas").scroll_into_view_if_needed()
    x, y = page.evaluate(f"photoMap.at({row})")
    box = page.locator("#canvas").bounding_box()
    return box["x"] + x, box["y"] + y


def downloaded(page):
    with page.expect_download() as chosen:
        page.get_by_role("button", name="Download CSV").click()
    with open(chosen.value.path(), newline="") as stream:
        return list(csv.DictReader(stream))


def test_photos_within_a_lasso_are_downloaded_as_a_table(open_page):
    page = open_page()
    page.get_by_role("button", name="Lasso").click()
    corners = [at(page, row) for row in range(6)]
    left, right = min(x for x, _ in corners) - 9, max(x for x, _ in corners) + 9
    top, bottom = min(y for _, y in corners) - 9, max(y for _, y in corners) + 9
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=2)
    page.mouse.up()
    assert state(page)["numChosen"] >= 6
    rows = downloaded(page)
    assert {f"train/{row}.png" for row in range(6)} <= {row["image_uri"] for row in rows}
    assert all(len(row["image_sha256"]) == 32 and row["label"] and row["prediction"] for row in rows)
    page.get_by_role("button", name="Let go").click()
    assert state(page)["numChosen"] == 0


def test_a_photo_is_shown_under_the_mouse_and_kept_by_a_click(open_page):
    page = open_page()
    page.mouse.move(*at(page, 6))
    page.locator("#hover").wait_for(state="visible")
    assert page.locator("#hover .name").inner_text() == "6.png"
    assert "predicted: red, which is wrong" in page.locator("#hover").inner_text()
    page.mouse.click(*at(page, 6))
    card = page.locator("#photo")
    assert "train/6.png" in card.inner_text()
    assert card.get_by_role("link", name="Open the photo").get_attribute("href").startswith("file:///")
    assert card.locator(".picture canvas, .picture img").count() == 1


def test_all_of_it_works_with_keys(open_page):
    page = open_page()
    page.locator("#canvas").focus()
    before = state(page)["scale"]
    page.keyboard.press("+")
    assert state(page)["scale"] > before
    page.keyboard.press("0")
    assert state(page)["scale"] == before
    page.keyboard.press("n")
    first = state(page)["pinned"]
    page.keyboard.press("n")
    assert first >= 0 and state(page)["pinned"] not in (-1, first)
    page.keyboard.press("Enter")
    assert state(page)["numChosen"] == 1
    page.keyboard.press("a")
    assert state(page)["numChosen"] == 18
    x, _ = at(page, 0)
    page.keyboard.press("ArrowLeft")
    assert at(page, 0)[0] > x
    page.keyboard.press("Escape")
    assert state(page)["pinned"] == -1


def test_photos_are_found_by_name_and_hidden_by_label(open_page):
    page = open_page()
    page.get_by_label("Part of a photo's name").fill("TRAIN/1")
    assert page.locator("#found").inner_text() == "9 photos found"
    page.get_by_role("button", name="Choose", exact=True).click()
    assert state(page)["numChosen"] == 9
    page.get_by_label("Part of a photo's name").fill("nowhere")
    assert page.locator("#found").inner_text() == "0 photos found"
    page.get_by_label("Part of a photo's name").fill("")
    assert page.get_by_label("Colour by").locator("option").all_inner_texts() == ["label", "set", "right or wrong"]
    page.get_by_label("right").uncheck()
    assert page.locator("#counts").inner_text() == "1 of 18 photos"
    page.get_by_label("Colour by").select_option("label")
    page.get_by_role("button", name="None").click()
    page.get_by_label("green").check()
    assert page.locator("#counts").inner_text() == "1 of 18 photos"


def test_two_fingers_zoom(open_page):
    page = open_page(PHONE, has_touch=True, is_mobile=True)
    before = state(page)["scale"]
    page.evaluate(
        """() => {
          const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
          const give = (kind, id, x) => canvas.dispatchEvent(new PointerEvent(kind, { pointerId: id, button: 0,
            pointerType: "touch", clientX: box.left + x, clientY: box.top + 100, bubbles: true }));
          canvas.setPointerCapture = () => {};
          give("pointerdown", 1, 150); give("pointerdown", 2, 200);
          give("pointermove", 1, 140); give("pointermove", 2, 260);
          give("pointerup", 1, 140); give("pointerup", 2, 260);
        }"""
    )
    assert state(page)["scale"] > 1.5 * before


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 400, "height": 1600}], ids=["1200", "390", "high"])
def test_the_whole_map_fills_its_field_and_no_picture_is_cut(open_page, viewport):
    page = open_page(viewport)
    page.wait_for_function("photoMap.state().scale === photoMap.state().least")
    box = page.locator("#canvas").bounding_box()
    half = 52 / 2 + 2  # a picture with its frame
    places = [page.evaluate(f"photoMap.at({row})") for row in range(18)]
    for place, side in ((0, box["width"]), (1, box["height"])):
        middles = [at[place] for at in places]
        assert half <= min(middles) and max(middles) <= side - half
        assert min(middles) + max(middles) == pytest.approx(side, abs=2)  # in the middle
    # Where the window is high, the field is only as high as the map.
    used = [max(at[place] for at in places) - min(at[place] for at in places) for place in (0, 1)]
    assert used[0] > box["width"] - 80 or used[1] > box["height"] - 80
    if viewport["height"] == 1600:
        assert box["height"] <= max(240, used[1] + 80)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["1200", "390"])
def test_it_breaks_no_rule_of_accessibility(open_page, viewport, scheme):
    script = axe_script()
    # The test puts a script of its own into the page, which the policy of the page forbids.
    page = open_page(viewport, color_scheme=scheme, bypass_csp=True)
    page.locator("#canvas").focus()
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    if _PICTURES:
        page.screenshot(path=os.path.join(_PICTURES, f"map-{viewport['width']}-{scheme}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.evaluate(script)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
    broken = {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found["violations"]}
    assert not broken, json.dumps(broken, indent=1)
