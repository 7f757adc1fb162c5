"""Command lines whose complaints are one line, like those about any other wrong input."""

from __future__ import annotations

import argparse
import os
import re
import sys
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
      any_bytes: takes arguments that are no UTF-8. Others refuse them, since what is made of them goes through Beam,
        TensorFlow and JSON, which cannot hold such names.
      **kwargs: of `argparse.ArgumentParser`.
    """

    def __init__(self, *, prog: str, any_bytes: bool = False, **kwargs: Any):
        # Abbreviations would change their meaning with every new flag.
        super().__init__(prog=_names.get(prog, prog), allow_abbrev=False, **kwargs)
        self._any_bytes = any_bytes

    @property
    def flags(self) -> list[str]:
        """All flags that the parser knows, with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in `argparse`. Raises InputError, also where an argument or the current folder's path is no UTF-8."""
        words = sys.argv[1:] if args is None else list(args)
        if not self._any_bytes:
            for word in words:
                _require_utf8(word, "an argument")
            _require_utf8(_current_folder(), "the path of the current folder")
        return super().parse_known_args(words, namespace)

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


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # It was deleted; whatever is relative to it says so.
        return ""


def _require_utf8(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not UTF-8: {text!r} ({_shown_byte(text[error.start])}). Give the file or folder another name, "
            "or make a symbolic link to it that has one."
        ) from error


def _shown_byte(character: str) -> str:
    return f"byte 0x{ord(character) & 0xFF:02x}" if 0xDC80 <= ord(character) <= 0xDCFF else "half of a character"
