"""Sections of a recipe: the checks that they share, and the error that names a field."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, ClassVar

from configs.errors import InputError, did_you_mean


class FieldError(InputError):
    """A field of a recipe is wrong; `field` is its dotted name, so that the reader can add its line."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def shown(value: Any) -> str:
    """A value as it is shown in messages; numbers of any length have a form that can be printed."""
    try:
        return repr(value)
    except ValueError:
        return "a number of more than 4300 digits"


class Section:
    """The checks that all sections share; a section calls them from its `__post_init__`."""

    prefix: ClassVar[str] = ""

    def _fail(self, field: str, rule: str) -> None:
        raise FieldError(f"{self.prefix}{field}", f"must be {rule}. Received: {shown(getattr(self, field))}.")

    def _check_text(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1:
                self._fail(field, "one line of text that is not empty")

    def _check_choice(self, field: str, choices: Collection[str]) -> None:
        value = getattr(self, field)
        if value not in choices:
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            raise FieldError(
                f"{self.prefix}{field}", f"must be one of {', '.join(choices)}. Received: {shown(value)}.{hint}"
            )

    def _check_int(self, field: str, minimum: int) -> None:
        value = getattr(self, field)
        # bool is an int in Python, but `batch_size: yes` is a mistake.
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self._fail(field, f"a whole number of at least {minimum}")

    def _is_finite_number(self, field: str) -> bool:
        value = getattr(self, field)
        return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max
