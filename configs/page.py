"""The section of a recipe about the web page of `hugs serve`: its title, and how it words and colours the answers."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, get_args

from configs.choices import PageColour
from configs.errors import did_you_mean
from configs.rules import Text
from configs.section import FieldError, Section, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions(Section):
    """The texts and colours of the page.

    Attributes:
      title: the heading of the page, best a question.
      texts: what the page says for a label; it says the label itself for those that are not named.
      colours: the colour of a label's answer; the others get colours in turn.

    Raises:
      FieldError: a value breaks its rule.
    """

    prefix: ClassVar[str] = "page."

    title: str = "What is in this photo?"
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    colours: dict[str, PageColour] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_text("title")
        self._check_pairs("texts", self.texts)
        self._check_pairs("colours", self.colours)
        known = get_args(PageColour)
        for label, colour in self.colours.items():
            if colour not in known:
                raise FieldError(
                    f"page.colours.{label}",
                    f"must be one of {', '.join(known)}. Received: {shown(colour)}.{did_you_mean(colour, known)}",
                )

    def _check_pairs(self, field: str, pairs: Any) -> None:
        if not isinstance(pairs, dict):
            self._fail(field, "pairs of a label and a text")
        for label, text in pairs.items():
            if not isinstance(label, str):
                raise FieldError(f"page.{field}", f"labels must be text. Received: {shown(label)}.")
            if not Text().holds(text):
                raise FieldError(f"page.{field}.{label}", f"must be {Text().words}. Received: {shown(text)}.")
