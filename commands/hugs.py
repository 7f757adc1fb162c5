"""The command `hugs`: one name for all programs of the project.

`hugs embed --help` runs `python -m pipelines.embed --help`. A program is imported only if its subcommand is given.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from configs.errors import EXIT_OK, InputError, did_you_mean
from configs.printed_commands import DISTRIBUTION, PROGRAMS, hugs_command
from configs.program import run_program


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs the program that the first argument names with the other arguments.

    Returns:
      The program's exit code; None means 0.

    Raises:
      InputError: there is no such subcommand, or the program refuses its input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return EXIT_OK
    if words[0] == "--version":
        print(f"hugs {_version()}")
        return EXIT_OK
    if words[0] not in PROGRAMS:
        raise InputError(
            f"hugs: there is no subcommand {words[0]!r}.{did_you_mean(words[0], PROGRAMS)} "
            f"`{hugs_command('--help')}` lists them."
        )
    module, _ = PROGRAMS[words[0]]
    try:
        program = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _own_packages():
            raise
        # An editable install names the packages that there were when it was made.
        raise InputError(
            f"hugs {words[0]}: this environment was made by an earlier version of the project, which had no "
            f"{error.name!r}. Bring it up to date: give `make setup` in the checkout, or install the project again."
        ) from error
    return program.main(words[1:])


def run() -> None:
    """The entry point of the console command."""
    run_program(main)


def _own_packages() -> set[str]:
    return {"configs", "preprocess", *(module.partition(".")[0] for module, _ in PROGRAMS.values())}


def _usage() -> str:
    width = max(map(len, PROGRAMS))
    hugs = hugs_command()
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in PROGRAMS.items()]
    return "\n".join(
        [
            f"usage: {hugs} SUBCOMMAND [flags ...]     {hugs} SUBCOMMAND --help     {hugs} --version",
            "",
            "Makes an image classifier from a folder of labelled photos.",
            "",
            *lines,
        ]
    )


def _version() -> str:
    import importlib.metadata  # here: it costs every other start a few milliseconds

    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed; run from its source)"


if __name__ == "__main__":
    run()
