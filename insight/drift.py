"""Says whether new photos are like those that a model was trained on, and if not, what may be the cause.

python -m insight.drift --model_dir out/training/model --data_paths 'out/new/photos*' --output_path out/drift
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.console import require_printed
from configs.counts import counted
from configs.csv_text import csv_text
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, option
from configs.printed_commands import program_command
from configs.program import run_program
from configs.rules import Number, Switch
from insight.options import PageOptions, parse_options
from trainer.options import Path

if TYPE_CHECKING:
    from insight.data.embedded_photos import EmbeddedPhotos
    from insight.data.photo_files import PhotoFiles
    from insight.drifting.comparison import Comparison

PAGE_NAME, TABLE_NAME, RESULT_NAME = "drift.html", "drift.csv", "drift.json"
# As `diff` does: 0 if nothing differs, 1 if something does, 2 for trouble.
EXIT_DRIFT = 1
_NUM_SHOWN = 20
_THUMBNAIL_SIDE = 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftOptions(PageOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    model_dir: str = option(
        REQUIRED,
        Path("a folder", "read"),
        help="the model that trainer.task exported, local or gs://; it holds a sketch of its training set",
        decides="neither",
        metavar="DIR",
    )
    alarm_level: float = option(
        0.03,
        Number(above=0, below=1),
        help="the share of false alarms among photos that are like the training set",
        decides="neither",
        metavar="P",
    )
    fail_on_drift: bool = option(
        False, Switch(can_be_unset=False), help="exit with code 1 if there is drift", decides="neither"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Returns:
      0; with --fail_on_drift 1 if there is drift.

    Raises:
      InputError: an argument is wrong, the model has no sketch, the records come from another network, or the output
        cannot be written.
    """
    options = parse_options(
        argv,
        DriftOptions,
        module="insight.drift",
        description="Says whether new photos are like those that a model was trained on, and if not, what may be the "
        "cause.",
        epilog="Embed the new photos first, with the model's network; they need no labels. A new class is seen only if "
        "there are enough photos of it: the test is honest and cannot see everything.",
    )
    from insight.data.embedded_photos import read_embedded_photos
    from insight.data.photo_files import PhotoFiles
    from insight.drifting.comparison import compare
    from insight.pages.output_folder import OutputFolder
    from preprocess.records.backbone_identity import difference_of
    from trainer.export.classifier import read_model_info
    from trainer.export.sketch_file import read_sketch

    output = OutputFolder(options.output_path, [PAGE_NAME, TABLE_NAME, RESULT_NAME], overwrite=options.overwrite)
    info = read_model_info(options.model_dir)
    sketch = read_sketch(options.model_dir, info)
    photos = read_embedded_photos(options.data_paths, flag="data_paths", input_dict=options.input_dict)
    made_by = photos.sets[0].manifest.backbone
    if not made_by.agrees_with(info.backbone):
        raise InputError(
            f"--data_paths: the record set {photos.sets[0].prefix} comes from another network than the model in "
            f"{options.model_dir}: {difference_of(info.backbone, made_by)}. Embed the photos with the model's network."
        )
    files = PhotoFiles(photos, options.photo_dirs)
    comparison = compare(sketch, photos, files, info=info, alarm_level=options.alarm_level)

    result = {
        "model_dir": options.model_dir,
        "data_paths": list(options.data_paths),
        "new_photos": len(photos),
        "training_photos": sketch.num_photos,
        **comparison.to_json(),
    }
    output.write(TABLE_NAME, _table(comparison, photos, files))
    output.write(PAGE_NAME, _page(comparison, photos, files, options))
    output.write(RESULT_NAME, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for line in comparison.lines:
        print(line)
    print(f"page:    {output.path(PAGE_NAME)}")
    print(f"table:   {output.path(TABLE_NAME)}")
    if comparison.drift:
        print(
            f"next:    look at the page; label some of these photos, and train with them: "
            f"{program_command('next', '--help')}"
        )
    require_printed()
    return EXIT_DRIFT if comparison.drift and options.fail_on_drift else EXIT_OK


def _table(comparison: Comparison, photos: EmbeddedPhotos, files: PhotoFiles) -> str:
    """drift.csv: all new photos that were compared, those that are behind the difference first."""
    return csv_text(
        ["image_uri", "image_sha256", "unusual", "similarity", "like", "location"],
        (
            [
                photos.uris[photo.row],
                photos.digest_of(photo.row) or "",
                f"{photo.unusual:.4f}",
                f"{photo.similarity:.4f}",
                photo.like,
                files.location(photo.row),
            ]
            for photo in comparison.ranked
        ),
    )


def _page(comparison: Comparison, photos: EmbeddedPhotos, files: PhotoFiles, options: DriftOptions) -> str:
    from insight.pages.html_page import render_page

    shown = []
    for photo in comparison.ranked[:_NUM_SHOWN]:
        thumbnail = files.thumbnail(photo.row, side=_THUMBNAIL_SIDE)
        shown.append({"uri": photos.uris[photo.row], "thumbnail": thumbnail, "like": photo.like})
    return render_page(
        "drift.html",
        title="Are these photos like those of the training?",
        comparison=comparison,
        shown=shown,
        model_dir=options.model_dir,
        data_paths=options.data_paths,
        counted_photos=counted(len(photos), "new photo"),
    )


if __name__ == "__main__":
    run_program(main)
