"""Rules for the values of options and of recipe fields: the allowed values, and their description in messages."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from typing import Any, ClassVar

from configs.errors import did_you_mean
from configs.file_uris import path_argument


def _is_finite_number(value: Any) -> bool:
    # bool is an int in Python, but `dropout: yes` is a mistake.
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max


class Rule:
    """A rule for the value of an option.

    Attributes:
      flag: the keyword arguments of `add_argument` with which argparse reads such a value.
    """

    flag: ClassVar[dict[str, Any]] = {}

    @property
    def words(self) -> str:
        """The rule in words. They follow the words "must be"."""
        raise NotImplementedError

    def holds(self, value: Any) -> bool:
        """Whether a value obeys the rule. The value may be of any type."""
        raise NotImplementedError

    def normal(self, value: Any) -> Any:
        """A value that keeps the rule in the form that programs use."""
        return value

    def hint(self, value: Any) -> str:
        """The end of the message about a value that breaks the rule: empty, or a space and a sentence."""
        return ""

    def flag_arguments(self) -> dict[str, Any]:
        """Keyword arguments of argparse's `add_argument` for a flag that takes such a value."""
        return self.flag


@dataclasses.dataclass(frozen=True)
class Whole(Rule):
    """A whole number in a range. Both ends belong to it."""

    flag: ClassVar[dict[str, Any]] = {"type": int}

    at_least: int
    at_most: int | None = None

    @property
    def words(self) -> str:
        """See `Rule`."""
        if self.at_most is not None:
            return f"a whole number from {self.at_least} to {self.at_most}"
        return f"a whole number of at least {self.at_least}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        # bool is an int in Python, but `batch_size: yes` is a mistake.
        if isinstance(value, bool) or not isinstance(value, int) or value < self.at_least:
            return False
        return self.at_most is None or value <= self.at_most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Rule):
    """A finite number in a range. `at_least` and `at_most` belong to the range; `above` and `below` do not."""

    flag: ClassVar[dict[str, Any]] = {"type": float}

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    unit: str | None = None

    @property
    def words(self) -> str:
        """See `Rule`."""
        number = f"a number of {self.unit}" if self.unit else "a number"
        high = f"below {self.below}" if self.below is not None else self.at_most
        if self.above is not None:
            return f"{number} above {self.above}" + (f" and at most {high}" if high is not None else "")
        if high is not None:
            return f"{number} from {self.at_least} to {high}"
        return f"{number}, at least {self.at_least}" if self.unit else f"{number} of at least {self.at_least}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return (
            _is_finite_number(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


class Percent(Number):
    """A number of percent. 10 and 10.0 are the same value, in definitions too."""

    def normal(self, value: Any) -> Any:
        """See `Rule`."""
        return float(value)


@dataclasses.dataclass(frozen=True)
class OneOf(Rule):
    """One of a few names."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, literal: Any) -> OneOf:
        """One of the names of a type such as `Literal["none", "gzip"]`."""
        return cls(typing.get_args(literal))

    @property
    def words(self) -> str:
        """See `Rule`."""
        return f"one of {', '.join(self.names)}"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return value in self.names

    def hint(self, value: Any) -> str:
        """See `Rule`."""
        return did_you_mean(value, self.names) if isinstance(value, str) else ""

    def flag_arguments(self) -> dict[str, Any]:
        """See `Rule`."""
        return {"choices": self.names}


@dataclasses.dataclass(frozen=True)
class Text(Rule):
    """One line of text that is not empty; with `anything`, any text. Its user may have further rules."""

    anything: bool = False

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "text" if self.anything else "one line of text that is not empty"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        if not isinstance(value, str):
            return False
        return self.anything or (bool(value.strip()) and len(value.splitlines()) == 1)


class HeaderText(Rule):
    """One line of text that can stand in the header of a request."""

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "one line of ASCII text that is not empty"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and bool(value.strip()) and value.isascii() and value.isprintable()


@dataclasses.dataclass(frozen=True)
class Texts(Rule):
    """Any number of texts: its flag may be repeated."""

    flag: ClassVar[dict[str, Any]] = {"action": "append"}

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "texts"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


@dataclasses.dataclass(frozen=True)
class Arguments(Texts):
    """One or more texts, which a command line gives without a flag."""

    flag: ClassVar[dict[str, Any]] = {"nargs": "+"}


@dataclasses.dataclass(frozen=True)
class PathText(Text):
    """A path or a URI, of which its user says more. `file://` URIs become local paths."""

    anything: bool = True

    def normal(self, value: Any) -> Any:
        """See `Rule`."""
        return path_argument(value)


@dataclasses.dataclass(frozen=True)
class PathTexts(Texts):
    """Any number of paths, URIs or patterns. `file://` URIs become local paths."""

    def normal(self, value: Any) -> Any:
        """See `Rule`."""
        return tuple(map(path_argument, value))


@dataclasses.dataclass(frozen=True)
class RepeatedPaths(PathTexts):
    """Any number of paths: the flag may be repeated, and takes all that a shell makes of a glob without quotes."""

    flag: ClassVar[dict[str, Any]] = {"action": "extend", "nargs": "+"}


@dataclasses.dataclass(frozen=True)
class Switch(Rule):
    """Yes or no.

    Attributes:
      can_be_unset: whether there is also a flag `--no-NAME`, because a recipe may say yes.
    """

    can_be_unset: bool = True

    @property
    def words(self) -> str:
        """See `Rule`."""
        return "true or false"

    def holds(self, value: Any) -> bool:
        """See `Rule`."""
        return isinstance(value, bool)

    def flag_arguments(self) -> dict[str, Any]:
        """See `Rule`."""
        if self.can_be_unset:
            return {"action": argparse.BooleanOptionalAction}
        return {"action": "store_const", "const": True}
