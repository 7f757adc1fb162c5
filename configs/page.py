"""The section of a recipe about the web page of `hugs serve`: its title, and how it words and colours the answers.

The trainer stores it with the model, so that a server needs no recipe.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar, get_args

from configs.choices import PageColour
from configs.errors import did_you_mean
from configs.rules import Rule, Text
from configs.section import FieldError, Section, shown


@dataclasses.dataclass(frozen=True)
class PageText(Rule):
    """A page as JSON. What is wrong in it, `PageOptions.from_text` says."""

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "JSON"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions(Section):
    """The texts and colours of the page.

    Attributes:
      title: the heading of the page, best a question.
      texts: what the page says for a label; it says the label itself for those that are not named.
      colours: the colour of a label's answer; the others get colours in turn that say neither good nor bad.

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

    @property
    def labels(self) -> frozenset[str]:
        """The labels that it names."""
        return frozenset(self.texts) | frozenset(self.colours)

    def to_json(self) -> dict[str, Any]:
        """The fields that are not the defaults, as JSON; empty if all are."""
        default = PageOptions()
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value != getattr(default, name)}

    @classmethod
    def from_json(cls, data: Any) -> PageOptions:
        """Reads what `to_json` wrote.

        Raises:
          FieldError: it is something else.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(data, dict) or not set(data) <= set(known):
            raise FieldError("page", f"must have only {', '.join(known)}. Received: {shown(data)}.")
        return cls(**data)

    @classmethod
    def from_text(cls, text: str) -> PageOptions:
        """Reads JSON of `to_json`. Raises FieldError if it is something else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise FieldError("page", f"must be JSON. Received: {shown(text)}.") from None
        return cls.from_json(data)
