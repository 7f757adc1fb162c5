"""A parser of command lines whose error messages are one line, as for all other wrong input."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import Any, NoReturn

from configs.console import require_printed
from configs.errors import InputError, did_you_mean, nearest
from configs.printed_commands import module_words


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are an `InputError`: one line, exit code 2, no usage text.

    Args:
      module: the module that is the program. Usage texts and messages show the command that starts it.
      any_bytes: accept arguments that are not UTF-8. Other parsers refuse them, because Beam, TensorFlow and JSON
        cannot store such names.
      **kwargs: the arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, *, module: str, any_bytes: bool = False, **kwargs: Any):
        # Abbreviations would change their meaning with every new flag.
        super().__init__(prog=shlex.join(module_words(module)), allow_abbrev=False, **kwargs)
        self._any_bytes = any_bytes
        self._words: list[str] = []

    @property
    def flags(self) -> list[str]:
        """All flags that the parser knows, with their dashes."""
        return [flag for action in self._actions for flag in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse`. Raises InputError, also if an argument or the current folder's path is not UTF-8."""
        words = sys.argv[1:] if args is None else list(args)
        self._words = words
        if not self._any_bytes:
            for word in words:
                require_utf8(word, "an argument")
            require_utf8(current_folder(), "the path of the current folder")
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
        if message.startswith("the following arguments are required: "):
            # A flag may be missing because it was misspelt; argparse says that only of flags that are not required.
            missing = set(message.partition(": ")[2].split(", "))
            given = [word.split("=")[0] for word in self._words if word.startswith("--")]
            for flag in given:
                if flag not in self.flags and (meant := nearest(flag, missing)):
                    message = f"unrecognized arguments: {flag}"
                    hint = f" Did you mean {meant!r}?"
        raise InputError(f"{message}.{hint} `{self.prog} --help` lists the flags.")


def current_folder() -> str:
    """The folder in which the program runs; empty if it was deleted."""
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
