"""Tells what became of a photo, a set, a training or a job, from what lies on the disk, and what goes on from there.

    python -m pipelines.why photos/4.jpg          # one photo, by its path, its URI or a part of it
    python -m pipelines.why data/train.csv:17     # one row of a list
    python -m pipelines.why out/preproc/train     # a set; also a training, a job directory or a folder of lists

The first line of the answer says the cause. The lines below it say more, each with the file that it is known from. What
is written down nowhere is said to be not known. The program changes nothing and takes a few seconds at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.rules import PathText


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhyOptions(Options):
    """The options of the program."""

    what: str = option(
        REQUIRED,
        PathText(anything=False),
        help="a photo (its path, its URI or a part of it), LIST:LINE, a set (out/preproc/train), the output folder of "
        "a training, a job directory, or a folder of lists",
        decides="neither",
        metavar="URI_OR_FOLDER",
        positional=True,
    )
    look_in: str = option(
        ".",
        PathText(),
        help="the folder in which, and below which, lists, sets and trainings are looked for, for the fate of a photo",
        decides="neither",
        metavar="FOLDER",
        default_words="the current folder",
        flag_name="in",  # a word of Python, so it cannot be the name of a field
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: nothing is known of the name, or storage cannot be read.
    """
    parser = OneLineParser(module="pipelines.why", description=(__doc__ or "").partition("\n\n")[0])
    add_flags(parser, options_of(WhyOptions))
    chosen = WhyOptions(**given_values(parser.parse_args(argv), WhyOptions))

    from pipelines.diagnosis.look import Look, storage_for  # here: --help does not need it
    from pipelines.diagnosis.questions import explain

    what, look_in = (path.rstrip("/") or "/" for path in (chosen.what, chosen.look_in))
    try:
        answers = explain(what, Look(storage_for(what)), look_in, Look(storage_for(look_in)))
    except OSError as error:
        raise InputError(
            f"{what}: cannot be looked at ({error.strerror or error}). Check the name, and that you may read it."
        ) from error
    print("\n\n".join("\n".join(answer.lines()) for answer in answers))
    require_printed()
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
