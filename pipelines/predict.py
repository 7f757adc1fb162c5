"""Answers for many photos with a trained model, or with a network's own classes: a Beam pipeline on any runner.

    python -m pipelines.predict --model_dir out/training/model --input_path photos/ --output_path out/answers

The photos are embedded as `pipelines.embed` does it, with its engines, limits and row accounting. Then the model
answers for their records, in `out/answers-00000-of-00001.csv`. The records stay in `out/_answers/`: with them another
model answers without reading a photo. If the program is stopped, the same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.activity import doing
from configs.console import require_printed
from configs.large_imports import without_garbage_collection
from configs.program import run_program
from pipelines.answers.flags import read_answer_flags


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Returns:
      0; 1 if the row accounting is wrong.

    Raises:
      InputError: the user's input is wrong, nothing could be embedded, or too many images failed.
    """
    flags = read_answer_flags(argv)
    with doing("loading Apache Beam"), without_garbage_collection():
        # here: --help and wrong flags answer before Beam is imported
        from pipelines.answers.run import answer

    code = answer(flags)
    require_printed()
    return code


if __name__ == "__main__":
    run_program(main)
