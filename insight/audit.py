"""Finds labels that are probably wrong, and makes a page on which a person decides about them.

Usage: python -m insight.audit --data_paths data/preproc/train --output_path out/audit
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from configs.console import require_printed
from configs.counts import counted
from configs.csv_text import write_csv
from configs.errors import EXIT_OK, InputError
from configs.option import option
from configs.program import run_program
from configs.rules import Whole
from configs.written_tables import SUSPECT_COLUMNS
from insight.options import PageOptions, parse_options
from trainer.options import Path

if TYPE_CHECKING:
    from insight.data.embedded_photos import EmbeddedPhotos

# With more of the records having several labels, the set is one of several labels a photo, as the trainer's `auto`
# says.
_SEVERAL_SHARE = 0.1
_PAGE_NAME = "audit.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditOptions(PageOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    group_by: str | None = option(
        None,
        Path("a file", "read"),
        help="CSV of groups of photos that show one thing, as `hugs twins` writes it: photos of a group never vouch "
        "for each other. Copies with the same content are always one group",
        decides="neither",
        metavar="FILE",
    )
    most: int = option(
        200, Whole(1), help="suspects to show on the page; the table has all photos", decides="neither", metavar="N"
    )
    seed: int = option(0, Whole(0), help="the same seed gives the same table", decides="neither")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with the arguments; see the module's docstring.

    Raises:
      InputError: the user's input is wrong.
    """
    options = parse_options(
        argv,
        AuditOptions,
        module="insight.audit",
        description="Finds labels in records that are probably wrong, without embedding anything: a table of all "
        "photos, the most suspicious first, and a page on which a person decides about them.",
    )
    from insight.data.embedded_photos import read_embedded_photos
    from insight.label_errors.audit_page import audit_page
    from insight.label_errors.groups import group_numbers
    from insight.label_errors.judge import judge_labels
    from insight.label_errors.suspects import SUSPECTS_NAME, all_labels, suspect_lines, suspects
    from insight.next_commands import steps_with_corrections
    from insight.pages.output_folder import OutputFolder

    sets = options.find_sets()
    output = OutputFolder(options.output_path, [SUSPECTS_NAME, _PAGE_NAME], overwrite=options.overwrite)
    photos = read_embedded_photos(sets, flag="data_paths", only_labelled=True)
    records = sum(record_set.manifest.records for record_set in photos.sets)
    unlabelled = records - len(photos)
    if not len(photos):
        raise InputError(f"--data_paths: none of the {counted(records, 'record')} has a label, so none can be wrong.")
    groups, grouped = group_numbers(photos, options.group_by)
    judgement = judge_labels(photos.embeddings, _given(photos), groups, seed=options.seed)
    # Of a million photos, the table takes a gigabyte: it is written while it is made.
    labels = all_labels(photos)
    found = suspects(photos, labels, judgement, groups)
    shown = list(itertools.islice(found, options.most))
    with output.text(SUSPECTS_NAME) as stream:
        write_csv(stream, SUSPECT_COLUMNS, suspect_lines(photos, labels, itertools.chain(shown, found)))
    output.write(_PAGE_NAME, audit_page(photos, judgement, shown, photo_dirs=options.photo_dirs))
    print(f"photos          {len(photos):,} of {counted(len(photos.sets), 'set')}")
    if unlabelled:
        print(f"without label   {unlabelled:,}, left out")
    if options.group_by is not None:
        print(f"in groups       {grouped:,} of {options.group_by}")
    print(f"probably wrong  {int(np.nansum(judgement.wrong > 0.5)):,} (more probably than not)")
    print(f"expected wrong  {np.nansum(judgement.wrong):.0f}, the sum of all probabilities")
    if unjudged := int(np.isnan(judgement.wrong).sum()):
        print(f"not judged      {unjudged:,}: no photo of another group has their label")
    print(f"\ntable:  {output.path(SUSPECTS_NAME)}")
    print(f"page:   {output.path(_PAGE_NAME)}   open it in a browser, decide, and download corrections.csv")
    steps = steps_with_corrections(photos.sets, input_dict=options.input_dict, output_path=options.output_path)
    for word, step in steps:
        print(f"{word + ':':<7} {step}")
    require_printed()
    return EXIT_OK


def _given(photos: EmbeddedPhotos) -> np.ndarray:
    """The labels of each photo in equal parts, float32 [n, classes].

    Raises:
      InputError: the photos may have several labels each; or the array does not fit in memory.
    """
    from insight.label_errors.judge import bytes_needed
    from trainer.data.memory import MemoryBudget

    distinct = np.unique(np.repeat(np.arange(len(photos)), photos.label_counts) * len(photos.labels) + photos.label_ids)
    owners, ids = distinct // len(photos.labels), distinct % len(photos.labels)
    counts = np.bincount(owners, minlength=len(photos))
    several = int((counts > 1).sum())
    if several >= _SEVERAL_SHARE * len(photos):
        raise InputError(
            f"--data_paths: {several:,} of the {counted(len(photos), 'record')} have several labels. An audit compares "
            "classes of which one is right for a photo. Make a list for each label, with two classes, yes and no."
        )
    needed = bytes_needed(len(photos), photos.embeddings.shape[1], len(photos.labels))
    budget = MemoryBudget(None)
    if not budget.take(needed):
        raise InputError(
            f"--data_paths: to judge {counted(len(photos), 'record')} of {len(photos.labels):,} classes takes "
            f"{needed >> 20:,} MiB of memory, and {budget.left >> 20:,} MiB may be used here, half of what is "
            "available. Audit one set at a time, or use a machine with more memory."
        )
    given = np.zeros((len(photos), len(photos.labels)), np.float32)
    given[owners, ids] = 1 / counts[owners]
    return given


if __name__ == "__main__":
    run_program(main)
