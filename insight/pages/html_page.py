"""Makes a page from a template: one file that opens offline, with a policy that lets only its own script run."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import time
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from trainer.reports.page_templates import page_environment

_PACKAGE = "insight.pages"


def render_page(template: str, *, title: str, scripts: Sequence[str] = (), data: Any = None, **values: Any) -> str:
    """Fills in a template that extends `page.html`. All text is escaped.

    Args:
      template: the name of a file in the folder `templates`.
      title: of the page.
      scripts: the names of files of JavaScript in that folder; they are written into the page, one after the other.
      data: what they read from the element `data`, as JSON; None for nothing.
      **values: what the template needs beside these.

    Raises:
      jinja2.UndefinedError: the template needs a value that is not given.
    """
    folder = importlib.resources.files(_PACKAGE) / "templates"
    code = "".join((folder / name).read_text(encoding="utf-8") for name in scripts)
    digest = "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() if code else ""
    return (
        page_environment(_PACKAGE)
        .get_template(template)
        .render(
            title=title,
            created=time.strftime("%Y-%m-%d %H:%M"),
            script=Markup(code),
            script_digest=digest,
            data=None if data is None else json_for_script(data),
            **values,
        )
    )


def page_id(content: object) -> str:
    """A name for what a page shows: what a browser has kept of a page with other photos does not count for it.

    Args:
      content: of lists, tuples and text.
    """
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def json_for_script(data: Any) -> Markup:
    """JSON that may stand in an element `script`: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text.encode("utf-8", "replace").decode())
