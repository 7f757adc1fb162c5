"""The templates of the HTML report: Jinja2 with autoescape. The folder `templates` holds them and the style sheet."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

import jinja2
from markupsafe import Markup, escape

from configs.console import printable
from configs.counts import counted
from trainer.reports.svg_charts import shortened


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, or a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def count_of(count: int | None) -> str:
    """A count, or a dash for None."""
    return "–" if count is None else f"{count:,}"


def _short(label: str, limit: int = 40) -> str:
    return shortened(label, limit)


def _end_of(uri: str) -> str:
    """The file and its folder. They say more than the beginning of the path."""
    end = "/".join(uri.split("/")[-2:])
    return uri if end == uri else f"…/{end}"


def _breakable(text: str) -> Markup:
    """Text with places where a line may end: after / _ - and before the last dot, so a file keeps its ending."""
    return Markup("<wbr>").join(map(escape, re.split(r"(?<=[/_-])|(?=\.[^./]+$)", printable(text))))


def _shown(value: object) -> object:
    """What a template prints for a value: text without characters that are invisible or change the text direction."""
    return value if isinstance(value, Markup) else printable(str(value))


@functools.cache
def page_environment(package: str) -> jinja2.Environment:
    """The templates of a package, and those of the report, such as its style sheet and its pieces.

    Args:
      package: a package with a folder `templates`.
    """
    packages = dict.fromkeys((package, "trainer.reports"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "count_of": count_of,
        "counted": counted,
        "python_text": repr,
        "shell_word": shlex.quote,
        "shortened": _short,
        "breakable": _breakable,
        "end_of": _end_of,
    }
    return environment


def template_names() -> list[str]:
    """The names of all templates."""
    return page_environment("trainer.reports").list_templates()


def load(template: str) -> jinja2.Template:
    """A template, compiled."""
    return page_environment("trainer.reports").get_template(template)


def render(template: str, **values: Any) -> str:
    """Fills in a template. All text is escaped, except for what is `Markup` already.

    Raises:
      jinja2.UndefinedError: the template needs a value that is not given.
    """
    return load(template).render(values)
