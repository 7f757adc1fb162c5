"""Command lines whose complaints are one line, like those about any other wrong input."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from configs.console import require_printed
from configs.errors import InputError, did_you_mean


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are an `InputError`: one line, exit code 2, no usage text."""

    def __init__(self, **kwargs: Any):
        # Abbreviations would change their meaning with every new flag.
        super().__init__(allow_abbrev=False, **kwargs)

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
