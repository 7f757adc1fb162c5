"""The page in a real browser: Chromium of the system, without a window, driven by Playwright."""

from __future__ import annotations

import base64
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import CHROMIUM, axe_script, pages_of_server
from tests.support.classifiers import jpeg

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
# The answers of the tiny network with random weights, which are always the same.
SURE, UNSURE = jpeg(1), jpeg(0)
# Look at the pictures of the page in this folder.
_PICTURES = os.environ.get("HUGS_TEST_PICTURES")


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page; whatever it asks of other hosts, and each error in it, fails the test."""
    with pages_of_server(browser, server.url) as open_page:
        yield lambda viewport=DESKTOP, **options: open_page(viewport=viewport, **options)


def file(name, content, kind="image/jpeg"):
    return {"name": name, "mimeType": kind, "buffer": content}


def choose(page, *files):
    page.set_input_files("#files", list(files))


def card_of(page, name):
    return page.locator(".answer", has=page.get_by_text(name, exact=True))


def verdict(page, name):
    card = card_of(page, name)
    card.locator("xpath=self::*[not(contains(@class, 'is-waiting'))]").wait_for()
    return card.locator(".verdict").inner_text()


def give(page, event, content, name):
    """Drops or pastes a file, as the browser would."""
    page.evaluate(
        """([event, data, name]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
          document.body.dispatchEvent(
            event === "drop"
              ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
              : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }),
          );
        }""",
        [event, base64.b64encode(content).decode(), name],
    )


def show_all(page):
    """A sure answer, an unsure one, and one that is none."""
    choose(page, file("sure.jpg", SURE), file("unsure.jpg", UNSURE), file("notes.jpg", b"<html>no photo</html>"))
    assert verdict(page, "sure.jpg") in ("Huggable", "Not so huggable")
    assert verdict(page, "unsure.jpg") == "Not sure"
    assert verdict(page, "notes.jpg") == "No answer"
    page.wait_for_timeout(450)  # The bars grow.


def picture(page, name):
    if _PICTURES:
        page.screenshot(path=os.path.join(_PICTURES, f"{name}.png"), full_page=True)


def test_photos_are_chosen_dropped_and_pasted(open_page):
    page = open_page()
    choose(page, file("a.jpg", SURE), file("b.jpg", SURE))
    give(page, "drop", SURE, "c.jpg")
    give(page, "paste", SURE, "d.jpg")
    words = {verdict(page, f"{name}.jpg") for name in "abcd"}
    assert words in ({"Huggable"}, {"Not so huggable"})
    assert page.locator(".name").all_inner_texts() == ["d.jpg", "c.jpg", "a.jpg", "b.jpg"]
    shares = page.locator(".answer").first.locator(".bar-share").all_inner_texts()
    assert len(shares) == 3 and all(re.fullmatch(r"(> |< )?\d+ %", share) for share in shares)
    page.locator(".preview img").first.wait_for(state="visible")
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".answer").count() == 0


def test_a_button_opens_the_choice_of_files(open_page):
    page = open_page()
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Choose photos").press("Enter")
    assert chosen.value.is_multiple()
    chosen.value.set_files(file("a.jpg", SURE))
    assert verdict(page, "a.jpg") in ("Huggable", "Not so huggable")


def test_a_photo_is_taken_with_the_camera(open_page):
    page = open_page()
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take it").click()
    assert verdict(page, "Photo of the camera")
    assert not page.locator("#camera").is_visible()


def test_a_phone_opens_its_own_camera(open_page):
    page = open_page(PHONE, has_touch=True, is_mobile=True)
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Take a photo").click()
    assert chosen.value.element.get_attribute("capture") == "environment"


def test_what_is_wrong_is_said_in_plain_words(open_page):
    page = open_page()
    files = {
        "page.jpg": (b"<html></html>", "This file is not a photo."),
        "empty.jpg": (b"", "This file is empty."),
        "half.jpg": (jpeg(0, (200, 200))[:3000], "the end of the file is missing"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read here"),
        "large.raw": (bytes(2_000_001), "too large"),
        '<img src=x onerror="alert(1)">.jpg': (b"x", "This file is not a photo."),
    }
    choose(page, *(file(name, content) for name, (content, _) in files.items()))
    for name, (_, words) in files.items():
        assert verdict(page, name) == "No answer"
        assert words in card_of(page, name).locator(".more").inner_text()
        assert not card_of(page, name).get_by_role("button", name="Try again").is_visible()


def test_a_busy_server_is_asked_again(open_page, server):
    admission = server.server.served.admission
    page = open_page()
    with admission.images_in_flight(admission.max_images), page.expect_response("**/predict*") as refused:
        choose(page, file("a.jpg", SURE))
    assert refused.value.status == 429
    assert verdict(page, "a.jpg") in ("Huggable", "Not so huggable")


def test_a_server_that_is_gone_can_be_asked_again(open_page):
    page = open_page()
    page.route("**/predict*", lambda route: route.abort())
    choose(page, file("a.jpg", SURE))
    assert verdict(page, "a.jpg") == "No answer"
    assert "does not answer" in card_of(page, "a.jpg").inner_text()
    page.unroute("**/predict*")
    page.get_by_role("button", name="Try again").click()
    assert verdict(page, "a.jpg") in ("Huggable", "Not so huggable")


def test_large_photos_are_made_smaller_and_upright(open_page):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # It stands after a quarter turn: the camera was held upright.
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    noise[:, :1000] = (255, 0, 0)  # On the left in the file, so at the top.
    Image.fromarray(noise).save(stream, "JPEG", quality=90, exif=exif)
    page = open_page()
    with page.expect_request("**/predict*") as asked:
        choose(page, file("phone.jpg", stream.getvalue()))
    # Playwright does not give the body, which is a blob.
    sent = page.evaluate(
        """async (data) => {
          const { forServer } = await import(new URL("page/shrink.js", location));
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const blob = await forServer(new File([bytes], "a.jpg", { type: "image/jpeg" }), 299);
          const buffer = new Uint8Array(await blob.arrayBuffer());
          return btoa(Array.from(buffer, (b) => String.fromCharCode(b)).join(""));
        }""",
        base64.b64encode(stream.getvalue()).decode(),
    )
    smaller = Image.open(io.BytesIO(base64.b64decode(sent)))
    assert smaller.size == (598, 797)
    assert smaller.getexif().get(0x0112, 1) == 1
    assert smaller.getpixel((300, 100))[0] > 200 > 60 > smaller.getpixel((300, 100))[1]
    assert verdict(page, "phone.jpg")
    assert int(asked.value.headers.get("content-length", 0) or 0) < len(stream.getvalue()) / 2


def test_small_photos_and_unknown_files_are_sent_as_they_are(open_page):
    page = open_page()
    sizes = page.evaluate(
        """async () => {
          const { forServer } = await import(new URL("page/shrink.js", location));
          const files = [
            new File([new Uint8Array(1000)], "a.jpg", { type: "image/jpeg" }),
            new File([new Uint8Array(300_000)], "a.heic", { type: "image/heic" }),
            new File([new Uint8Array(300_000)], "a.txt", { type: "text/plain" }),
          ];
          return Promise.all(files.map(async (file) => (await forServer(file, 299)) === file));
        }"""
    )
    assert sizes == [True, True, True]


def test_keys_and_ears_are_enough(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photograph"
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Take a photo").wait_for()
    page.keyboard.press("Escape")
    page.locator("#camera").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "photograph"
    choose(page, file("unsure.jpg", UNSURE))
    page.get_by_role("status").get_by_text("unsure.jpg: not sure, perhaps").wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["1200", "390"])
def test_it_breaks_no_rule_of_accessibility(open_page, viewport, scheme):
    script = axe_script()
    # The test puts a script of its own into the page, which the policy of the page forbids.
    page = open_page(viewport, color_scheme=scheme, bypass_csp=True)
    picture(page, f"empty-{viewport['width']}-{scheme}")
    show_all(page)
    picture(page, f"answers-{viewport['width']}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.evaluate(script)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
    broken = {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found["violations"]}
    assert not broken, json.dumps(broken, indent=1)
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take it").wait_for()
    picture(page, f"camera-{viewport['width']}-{scheme}")
    found = page.evaluate("axe.run(document.getElementById('camera'))")
    assert not found["violations"]
