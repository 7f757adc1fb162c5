"""Sections of a recipe: the checks that they share, and the error that names a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from configs.errors import InputError
from configs.rules import OneOf, Rule, Text, Whole


class FieldError(InputError):
    """A field of a recipe is wrong; `field` is its dotted name, so that the reader can add its line."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def shown(value: Any) -> str:
    """A value as messages show it. Numbers with too many digits for Python to print are described."""
    try:
        return repr(value)
    except ValueError:
        return "a number of more than 4300 digits"


class Section:
    """The checks that all sections share; a section calls them from its `__post_init__`."""

    prefix: ClassVar[str] = ""

    def _fail(self, field: str, rule: str) -> None:
        raise FieldError(f"{self.prefix}{field}", f"must be {rule}. Received: {shown(getattr(self, field))}.")

    def _check(self, field: str, rule: Rule) -> None:
        value = getattr(self, field)
        if not rule.holds(value):
            problem = f"must be {rule.words}. Received: {shown(value)}.{rule.hint(value)}"
            raise FieldError(f"{self.prefix}{field}", problem)

    def _check_text(self, *fields: str) -> None:
        for field in fields:
            self._check(field, Text())

    def _check_choice(self, field: str, choices: Sequence[str]) -> None:
        self._check(field, OneOf(tuple(choices)))

    def _check_int(self, field: str, minimum: int) -> None:
        self._check(field, Whole(minimum))
