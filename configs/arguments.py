"""A parser of command lines whose error messages are one line, as for all other wrong input."""

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
    """Sets the commands that usage texts and error messages show for programs.

    Args:
      names: the new command by the default one, for example {"python -m pipelines.embed": "hugs embed"}.
    """
    _names.update(names)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are an `InputError`: one line, exit code 2, no usage text.

    Args:
      prog: the command that starts the program, unless `name_programs` gives another one.
      any_bytes: accept arguments that are not UTF-8. Other parsers refuse them, because Beam, TensorFlow and JSON
        cannot store such names.
      **kwargs: the arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, *, prog: str, any_bytes: bool = False, **kwargs: Any):
        # Abbreviations are not allowed, because every new flag could change their meaning.
        super().__init__(prog=_names.get(prog, prog), allow_abbrev=False, **kwargs)
        self._any_bytes = any_bytes

    @property
    def flags(self) -> list[str]:
        """All flags that the parser knows, with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse`. Raises InputError, also if an argument or the current folder's path is not UTF-8."""
        words = sys.argv[1:] if args is None else list(args)
        if not self._any_bytes:
            for word in words:
                require_utf8(word, "an argument")
            require_utf8(_current_folder(), "the path of the current folder")
        return super().parse_known_args(words, namespace)

    def print_help(self, file: Any = None) -> None:
        """Prints the help. Raises InputError if it could not be written."""
        super().print_help(file)
        require_printed()

    def error(self, message: str) -> NoReturn:
        """Raises the error message instead of printing it.

        Raises:
          InputError: always.
        """
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        hint = did_you_mean(unknown[1].split("=")[0], self.flags) if unknown else ""
        raise InputError(f"{message}.{hint} `{self.prog} --help` lists the flags.")


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # The folder was deleted. The first use of a relative path reports that.
        return ""


def require_utf8(text: str, what: str) -> None:
    """Checks that a name can be written into our files. They are UTF-8, but names of files may hold any bytes.

    Args:
      text: a path, or a word of the command line.
      what: the place of the text, for the message.

    Raises:
      InputError: the text holds bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not UTF-8: {text!r} ({_shown_byte(text[error.start])}). Give the file or folder another name, "
            "or make a symbolic link to it that has one."
        ) from error


def _shown_byte(character: str) -> str:
    return f"byte 0x{ord(character) & 0xFF:02x}" if 0xDC80 <= ord(character) <= 0xDCFF else "half of a character"
