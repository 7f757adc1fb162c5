"""The definition of an option: a field of a dataclass with its default, its rule, its help and what it decides.

Everything else is derived from these fields: the checks of recipes and command lines, the flags of programs, the
definitions of jobs and of checkpoints, and the options for which a plan is made.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from configs.rules import OneOf, Rule, Switch
from configs.section import Section

# What the value of an option decides:
#   "records": the bytes of the records. A job with another value is another job, and reuses nothing of the first one.
#   "model": the weights that a training comes to. A training with another value does not go on from its checkpoint.
#   "neither": nothing of both. A run with another value goes on from the work of the first one.
Decides = Literal["records", "model", "neither"]

REQUIRED: Any = dataclasses.MISSING
_KEY = "option"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """The definition of one option.

    Attributes:
      default: the value if none is given; REQUIRED if a value must be given. If the default is None, None is always
        allowed, regardless of the rule.
      rule: the rule for the value.
      help: the text of `--help`, without the default.
      decides: what the value decides.
      held_as: names of the entries of the definition (see `definition_of`) that stand for the value. The code that
        makes the definition adds these entries. Empty if the definition contains the value itself.
      decides_time: whether the time that a run takes depends on the value, so that a plan was made for this value only.
      metavar: what `--help` calls the value; None for argparse's choice.
      default_words: the default as `--help` shows it; None for the value itself.
    """

    default: Any
    rule: Rule
    help: str
    decides: Decides
    held_as: tuple[str, ...] = ()
    decides_time: bool = False
    metavar: str | None = None
    default_words: str | None = None

    def __post_init__(self) -> None:
        known = OneOf.of(Decides)
        if not known.holds(self.decides):
            raise TypeError(f"what an option decides must be {known.words}, not {self.decides!r}")

    @property
    def full_help(self) -> str:
        """The help with the default at its end, if there is a default."""
        words = self.default_words
        if words is None and isinstance(self.rule, Switch):
            words = ("yes" if self.default else "no") if self.rule.can_be_unset else None
        elif words is None and self.default not in (REQUIRED, None, ()):
            words = str(self.default)
        return self.help if words is None else f"{self.help} (default: {words})"


def option(
    default: Any,
    rule: Rule,
    *,
    help: str,
    decides: Decides,
    held_as: tuple[str, ...] = (),
    decides_time: bool = False,
    metavar: str | None = None,
    default_words: str | None = None,
) -> Any:
    """A field of a dataclass that is an option; for the arguments see `Option`."""
    described = Option(
        default=default,
        rule=rule,
        help=help,
        decides=decides,
        held_as=held_as,
        decides_time=decides_time,
        metavar=metavar,
        default_words=default_words,
    )
    return dataclasses.field(default=default, metadata={_KEY: described})


def options_of(owner: Any) -> dict[str, Option]:
    """The options of a dataclass, or of an object of it, by name and in the order of the fields.

    Raises:
      TypeError: a field is not made by `option`, so nobody knows what it decides.
    """
    found = {}
    for field in dataclasses.fields(owner):
        if _KEY not in field.metadata:
            raise TypeError(f"{owner}: the field {field.name} is not made by configs.option.option")
        found[field.name] = field.metadata[_KEY]
    return found


class Options(Section):
    """Base of dataclasses whose fields are all options. Every object keeps all of their rules.

    Values have the normal form of their rule.
    """

    def __post_init__(self) -> None:
        for name, described in options_of(self).items():
            value = getattr(self, name)
            if described.default is not None or value is not None:
                self._check(name, described.rule)
                object.__setattr__(self, name, described.rule.normal(value))


def add_flags(
    parser: argparse.ArgumentParser, options: Mapping[str, Option], *, help: Mapping[str, str] | None = None
) -> None:
    """Adds a flag for each option. A flag that is not given comes out as None, since a recipe may have a value.

    Args:
      parser: that gets the flags.
      options: of `options_of`.
      help: what `--help` says instead, by the name of the option; it does not list all others. None for the options'
        own help.
    """
    for name, described in options.items():
        arguments = described.rule.flag_arguments()
        if described.default is REQUIRED:
            arguments = {**arguments, "required": True}
        if described.metavar is not None:
            arguments = {**arguments, "metavar": described.metavar}
        words = described.full_help if help is None else help.get(name, argparse.SUPPRESS)
        parser.add_argument(f"--{name}", help=words, **arguments)


def definition_of(options: Options, decides: Decides) -> dict[str, Any]:
    """The values that decide the records or the model, by name, without those that are `held_as` something else."""
    return {
        name: getattr(options, name)
        for name, described in options_of(options).items()
        if described.decides == decides and not described.held_as
    }


def time_deciding(options: Options) -> dict[str, Any]:
    """The values on which the time that a run takes depends, by name."""
    return {name: getattr(options, name) for name, described in options_of(options).items() if described.decides_time}
