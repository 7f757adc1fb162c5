"""The command `hugs`: one name for the programs that a person starts.

`hugs embed --help` is `python -m pipelines.embed --help`. A program is imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from configs import arguments
from configs.errors import EXIT_OK, InputError, did_you_mean
from configs.program import run_program

DISTRIBUTION = "hugs-image-classifier"
# Each subcommand, the module whose `main(argv)` it runs, and what it does.
PROGRAMS = {
    "ingest": ("pipelines.ingest", "a folder of labelled photos to lists"),
    "plan": ("pipelines.plan", "what embedding the lists will take and cost"),
    "embed": ("pipelines.embed", "a list of images to records, one embedding an image"),
    "preproc": ("pipelines.preproc", "all lists of a recipe to records, as hugs_preproc.sh does"),
    "train": ("trainer.task", "records to a model, its metrics and a report"),
    "predict": ("trainer.predict", "what a model says of photos"),
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs the program that the first argument names with the other arguments.

    Returns:
      The program's exit code; None means 0.

    Raises:
      InputError: there is no such subcommand, or the program says why.
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
            f"hugs: there is no subcommand {words[0]!r}.{did_you_mean(words[0], PROGRAMS)} `hugs --help` lists them."
        )
    module, _ = PROGRAMS[words[0]]
    arguments.name_programs({f"python -m {module}": f"hugs {name}" for name, (module, _) in PROGRAMS.items()})
    return importlib.import_module(module).main(words[1:])


def run() -> None:
    """The entry point of the console command."""
    run_program(main)


def _usage() -> str:
    width = max(map(len, PROGRAMS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in PROGRAMS.items()]
    return "\n".join(
        [
            "usage: hugs SUBCOMMAND [flags ...]     hugs SUBCOMMAND --help     hugs --version",
            "",
            "From a folder of labelled photos to a classifier of your own.",
            "",
            *lines,
        ]
    )


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed; run from its source)"


if __name__ == "__main__":
    run()
