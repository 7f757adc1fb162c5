"""Similar photos on the page of the server, in a real browser."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.browser import accessibility_faults, chromium, pages_of_server
from tests.support.searched_photos import GONE, LARGE, WEB, write_searched_photos

pytestmark = pytest.mark.usefixtures("with_extra")
# Look at the pictures of the page in this folder.
_PICTURES = os.environ.get("HUGS_TEST_PICTURES")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, model_dir, with_extra):
    return write_searched_photos(tmp_path_factory.mktemp("similar"), model_dir, web_uri="https://nowhere.test/5.jpg")


@pytest.fixture(scope="module")
def searching(model_dir, photos):
    from configs.recipe import load_recipe
    from tests.support.serving import running_server

    with running_server(load_recipe("hugs").page, model_dir=(model_dir,), search=(photos.prefix,)) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser, searching):
    """Opens the page; whatever it asks of other hosts, and each error in it, fails the test."""
    with pages_of_server(browser, searching.url) as open_page:
        yield lambda width=1200, scheme="light": open_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=scheme == "dark"
        )


def ask(page, content, name="a.jpg"):
    page.set_input_files("#files", [{"name": name, "mimeType": "image/jpeg", "buffer": content}])
    page.locator(".similar-list li").nth(7).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumbnail img:not([hidden])')].every((i) => i.complete)"
    )


def test_similar_photos_stand_below_the_answer_and_open_by_keys(open_page, photos):
    page = open_page()
    ask(page, photos.files[2])
    items = page.locator(".similar-list li")
    assert items.count() == 8
    first = items.first
    assert first.locator(".similarity").inner_text() == "1.000"
    assert first.locator(".same-file").is_visible() and page.locator(".same-file:visible").count() == 1
    assert {"bear", "huggable", "not so huggable"} <= set(page.locator(".similar-label").all_inner_texts())
    page.get_by_role("status").get_by_text("8 similar photos, the nearest: bear, similarity 1.000").wait_for(
        state="attached"
    )
    assert "blob:" not in (first.locator("img").get_attribute("src") or "")
    assert first.locator("img").evaluate("(image) => image.naturalWidth") == 256
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="bear")
    dialog.wait_for()
    assert "1.000, the same file" in dialog.inner_text() and photos.uris[2] in dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("document.activeElement === document.querySelector('.similar-button')")


def test_a_photo_that_cannot_be_shown_has_its_name_and_a_web_address_is_a_link(open_page, photos):
    page = open_page()
    ask(page, photos.files[0])
    for row, name in ((GONE, "3 ä.jpg"), (WEB, "5.jpg")):
        button = page.locator(f'.similar-button[title="{photos.uris[row]}"]')
        button.get_by_text(f"No picture: {name}").wait_for()
        button.click()
        page.get_by_role("dialog").get_by_text(photos.uris[row], exact=True).wait_for()
        page.get_by_role("button", name="Close").click()
    page.locator(f'.similar-button[title="{photos.uris[WEB]}"]').click()
    link = page.get_by_role("link", name=photos.uris[WEB])
    assert link.get_attribute("rel") == "noreferrer noopener"


def test_a_large_photo_of_the_set_is_marked_though_a_smaller_copy_is_sent(open_page, photos):
    page = open_page()
    ask(page, photos.files[LARGE])
    marked = page.locator(".similar-button", has=page.locator(".same-file:visible"))
    assert marked.get_attribute("title") == photos.uris[LARGE]
    # Without its SHA-256 the copy is another file.
    page.evaluate("() => { crypto.subtle.digest = () => Promise.reject(); }")
    page.get_by_role("button", name="Clear").click()
    ask(page, photos.files[LARGE])
    assert page.locator(".same-file:visible").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_breaks_no_rule_of_accessibility(open_page, photos, scheme):
    for width in (400, 1200):
        page = open_page(width, scheme)
        ask(page, photos.files[2])
        page.wait_for_timeout(450)  # The bars grow.
        if _PICTURES:
            page.screenshot(path=os.path.join(_PICTURES, f"similar-{width}-{scheme}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if scheme == "dark":  # Its policy is off, so the script of the test may run.
            faults = accessibility_faults(page)
            assert not faults, json.dumps(faults, indent=1)
        page.locator(".similar-button").first.click()
        page.get_by_role("dialog", name="bear").wait_for()
        if _PICTURES:
            page.screenshot(path=os.path.join(_PICTURES, f"photo-{width}-{scheme}.png"))
        if scheme == "dark":
            faults = accessibility_faults(page)
            assert not faults, json.dumps(faults, indent=1)
