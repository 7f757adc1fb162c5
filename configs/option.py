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
#   "model": the trained weights. A training with another value does not go on from the checkpoint.
#   "neither": neither of them. A run with another value goes on from the work of the first one.
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
      omits_default: the definition holds the value only if it is not the default. So jobs that were begun before there
        was such an option keep their definition.
      decides_time: whether the time that a run takes depends on the value, so that a plan was made for this value only.
      metavar: what `--help` calls the value; None for argparse's choice.
      default_words: the default as `--help` shows it; None for the value itself.
      positional: whether the command line gives the value without a flag.
      flag_name: the name of the flag; None for the name of the field.
      short: the letter of a short name of the flag; None if it has none.
    """

    default: Any
    rule: Rule
    help: str
    decides: Decides
    held_as: tuple[str, ...] = ()
    omits_default: bool = False
    decides_time: bool = False
    metavar: str | None = None
    default_words: str | None = None
    positional: bool = False
    flag_name: str | None = None
    short: str | None = None

    def __post_init__(self) -> None:
        known = OneOf.of(Decides)
        if not known.holds(self.decides):
            raise TypeError(f"what an option decides must be {known.words}, not {self.decides!r}")

    def words_of(self, name: str, value: Any) -> tuple[str, ...]:
        """The words of a command line that give a value, for an option of this name."""
        flag = self.flag_name or name
        if isinstance(self.rule, Switch):
            return (f"--{flag}" if value else f"--no-{flag}",)
        return f"--{flag}", str(value)

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
    omits_default: bool = False,
    decides_time: bool = False,
    metavar: str | None = None,
    default_words: str | None = None,
    positional: bool = False,
    flag_name: str | None = None,
    short: str | None = None,
) -> Any:
    """A field of a dataclass that is an option; for the arguments see `Option`."""
    described = Option(
        default=default,
        rule=rule,
        help=help,
        decides=decides,
        held_as=held_as,
        omits_default=omits_default,
        decides_time=decides_time,
        metavar=metavar,
        default_words=default_words,
        positional=positional,
        flag_name=flag_name,
        short=short,
    )
    return dataclasses.field(default=default, metadata={_KEY: described})


def same_option(owner: Any, name: str, **changes: Any) -> Any:
    """A field that is the option of another dataclass, with changes to what it is there; see `Option`."""
    described = dataclasses.replace(options_of(owner)[name], **changes)
    return dataclasses.field(default=described.default, metadata={_KEY: described})


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
    """Adds a flag for each option. The value of a flag that is not given is None, because a recipe may give the value.

    Args:
      parser: the parser that gets the flags.
      options: from `options_of`.
      help: other help texts, by the name of the option. `--help` does not show options without one. None for the
        options' own help.
    """
    for name, described in options.items():
        arguments = described.rule.flag_arguments()
        if described.default is REQUIRED and not described.positional:
            arguments = {**arguments, "required": True}
        if described.metavar is not None:
            arguments = {**arguments, "metavar": described.metavar}
        words = described.full_help if help is None else help.get(name, argparse.SUPPRESS)
        if described.positional:
            parser.add_argument(name, help=words, **arguments)
        else:
            names = [f"-{described.short}"] if described.short else []
            parser.add_argument(*names, f"--{described.flag_name or name}", dest=name, help=words, **arguments)


def given_values(args: argparse.Namespace, owner: Any) -> dict[str, Any]:
    """The values that a command line gives for the options of a dataclass, by name. Other options are left out.

    Args:
      args: the result of a parser with the flags of `add_flags`.
      owner: the dataclass, or an object of it.
    """
    values = {name: getattr(args, name) for name in options_of(owner)}
    # argparse collects the values of a repeated flag in a list. Options are frozen, so they have tuples.
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }


def definition_of(options: Options, decides: Decides) -> dict[str, Any]:
    """The values that decide the records or the model, by name, without those that are `held_as` something else."""
    return {
        name: getattr(options, name)
        for name, described in options_of(options).items()
        if described.decides == decides and not described.held_as
        if not (described.omits_default and getattr(options, name) == described.default)
    }


def defining_flags(owner: type[Options], decides: Decides, definition: Mapping[str, Any]) -> list[str]:
    """The flags that give the values of a definition, made by `definition_of`, that are not the defaults.

    Args:
      owner: has the options.
      decides: what the values decide.
      definition: may hold other entries, which are left out.
    """
    return [
        word
        for name, described in options_of(owner).items()
        if described.decides == decides and not described.held_as and name in definition
        if definition[name] != described.default
        for word in described.words_of(name, definition[name])
    ]


def time_deciding(options: Options) -> dict[str, Any]:
    """The values that decide how long a run takes, by name."""
    return {name: getattr(options, name) for name, described in options_of(options).items() if described.decides_time}
