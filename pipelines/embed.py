"""Makes records from lists of labelled image URIs: runs the Beam pipeline that embeds every image.

    python -m pipelines.embed --input_path data/train.csv --input_dict data/dict.txt \\
        --output_path out/preproc/train

Writes the shards `out/preproc/train-*` and, beside them, `out/preproc/_train/` with the report, the lists of failed
and skipped rows, and the manifest that completes the set. With `--backbone a,b` it writes such a set for each network,
`out/preproc/a/train` and `out/preproc/b/train`, and reads and decodes each image once. If the program is stopped, the
same command goes on where it was stopped. Flags that are not listed here, for example `--runner`, are Beam's own and
are passed through to Beam. With `--runner DataflowRunner` the job is submitted to Dataflow and goes on there; the
recipe says on which machines.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.activity import doing
from configs.console import require_printed
from configs.errors import EXIT_OK
from configs.large_imports import without_garbage_collection
from configs.program import run_program
from pipelines.checks.embed_flags import read_flags

if TYPE_CHECKING:
    from pipelines.embedding.prepared_job import PreparedJob


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program, and prints the command that comes next.

    Returns:
      0; 1 if the row accounting is wrong.

    Raises:
      InputError: the user's input is wrong, nothing could be embedded, or too many images failed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    prepared = prepare(words)
    code = _run(prepared)
    if code is None or code != EXIT_OK or prepared.dry_run:
        return code or EXIT_OK
    from pipelines.embedding.next_step import next_steps  # here: it imports what the job needs, and --help does not

    with contextlib.suppress(OSError):  # The set is finished; the advice is not worth an error.
        for command in next_steps(words, prepared.storage):
            print(f"next:    {command}")
    return EXIT_OK


def run(argv: Sequence[str]) -> int:
    """Embeds as `main` does, for a program that embeds several lists and knows by itself what comes next."""
    return _run(prepare(argv)) or EXIT_OK


def _run(prepared: PreparedJob) -> int | None:
    """The exit code; None if the job goes on elsewhere."""
    if prepared.dry_run:
        print(prepared.describe())
        require_printed()
        return EXIT_OK
    started = prepared.start()
    if isinstance(started, int):
        return started
    return started.wait() if prepared.wait else None


def prepare(argv: Sequence[str] | None = None) -> PreparedJob:
    """Reads the flags and checks everything that can be checked before the job starts.

    Raises:
      InputError: something that the user gave is wrong.
    """
    flags = read_flags(argv)
    with doing("loading Apache Beam"), without_garbage_collection():
        # here: --help and wrong flags answer before Beam is imported
        from pipelines.embedding.preparation import prepare_job

    return prepare_job(flags)


if __name__ == "__main__":
    run_program(main)
