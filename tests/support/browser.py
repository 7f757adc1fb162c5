"""Pages in a real browser: Chromium of the system, without a window, driven by Playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Starts Chromium; the test is skipped, with the reason, where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened_file(
    browser: Any, path: str, *, width: int = 1200, dark: bool = False, bypass_csp: bool = False
) -> Iterator:
    """Opens a page from the disk. Each error in it, and whatever it asks of other hosts, fails the test at the end."""
    faults: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", bypass_csp=bypass_csp
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    page.goto(f"file://{path}")
    yield page
    context.close()
    assert not faults


def assert_accessible(browser: Any, path: str, *, keys: Sequence[str] = ()) -> None:
    """A page on the disk breaks no rule of axe-core and does not scroll sideways: wide and narrow, light and dark.

    Args:
      browser: Chromium.
      path: of the page.
      keys: are pressed before.
    """
    for width, dark in ((390, True), (390, False), (1200, True), (1200, False)):
        with opened_file(browser, path, width=width, dark=dark, bypass_csp=True) as page:
            for key in keys:
                page.keyboard.press(key)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert not accessibility_faults(page)


def reload_until_status(page: Any, text: str) -> None:
    """Reloads a page that keeps its state in the browser, until its status says what was kept.

    On a busy machine Chromium (156) may open a reloaded page with an empty storage, and give it what was kept at the
    next reload: a page that only writes and reads one word showed it too, however long it waited before.
    """
    import playwright.sync_api

    for is_last in [False] * 9 + [True]:
        page.reload()
        try:
            page.get_by_role("status").get_by_text(text).wait_for(timeout=20_000 if is_last else 1_000)
            return
        except playwright.sync_api.TimeoutError:
            if is_last:
                raise


@contextlib.contextmanager
def pages_of_server(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """A function that opens the page of a server, in a new context of the browser with the options that it gets.

    Each error in a page, and whatever a page asks of other hosts, fails the test at the end.
    """
    faults: list[str] = []
    contexts: list[Any] = []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        own = (f"{url}/", f"blob:{url}/")
        page.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
        page.goto(f"{url}/")
        page.get_by_role("heading", name="Can I hug that?").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def axe_script() -> str:
    """axe-core, which looks for breaches of accessibility; where it is missing, the test is skipped with the reason."""
    if importlib.util.find_spec("axe_playwright_python") is None:
        pytest.skip("axe-core is not installed (axe-playwright-python)")
    import axe_playwright_python

    return pathlib.Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()


def accessibility_faults(page: Any) -> dict[str, list[str]]:
    """The rules of axe-core that a page breaks, each with the elements. Open the page with `bypass_csp`."""
    page.evaluate(axe_script())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found["violations"]}
