"""Command lines whose complaints are one line, like those about any other wrong input."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from configs.console import require_printed
from configs.errors import InputError, did_you_mean

_names: dict[str, str] = {}


def name_programs(names: Mapping[str, str]) -> None:
    """Says what users type to start programs; usage texts and complaints then say that.

    Args:
      names: by what they would say otherwise: {"python -m pipelines.embed": "hugs embed"}.
    """
    _names.update(names)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are an `InputError`: one line, exit code 2, no usage text.

    Args:
      prog: how the program is started, unless `name_programs` knows better.
      **kwargs: of `argparse.ArgumentParser`.
    """

    def __init__(self, *, prog: str, **kwargs: Any):
        # Abbreviations would change their meaning with every new flag.
        super().__init__(prog=_names.get(prog, prog), allow_abbrev=False, **kwargs)

    @property
    def flags(self) -> list[str]:
        """All flags that the parser knows, with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def print_help(self, file: Any = None) -> None:
        """Prints the help. Raises InputError if it could not be written."""
        super().print_help(file)
        require_printed()

    def error(self, message: str) -> NoReturn:
        """Raises the complaint instead of printing it.

        Raises:
          InputError: always.
        """
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        hint = did_you_mean(unknown[1].split("=")[0], self.flags) if unknown else ""
        raise InputError(f"{message}.{hint} `{self.prog} --help` lists the flags.")
