"""The command `hugs`: one name for all programs of the project.

`hugs embed --help` runs `python -m pipelines.embed --help`. A program is imported only if its subcommand is given.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from configs import arguments
from configs.errors import EXIT_OK, InputError, did_you_mean
from configs.program import run_program

DISTRIBUTION = "hugs-image-classifier"
# Each subcommand, the module whose `main(argv)` it runs, and what it does.
PROGRAMS = {
    "ingest": ("pipelines.ingest", "makes lists from a folder of labelled photos"),
    "plan": ("pipelines.plan", "estimates the time and cost of embedding the lists"),
    "embed": ("pipelines.embed", "makes records from a list of images: one embedding for each image"),
    "preproc": ("pipelines.preproc", "makes records from all lists of a recipe, as hugs_preproc.sh does"),
    "backbones": ("preprocess.list_backbones", "lists the networks that make embeddings"),
    "train": ("trainer.task", "trains a model on records, and writes metrics and a report"),
    "predict": ("trainer.predict", "predicts the labels of photos"),
    "classify": ("preprocess.classify", "says which of ImageNet's classes photos show, without training"),
}


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
