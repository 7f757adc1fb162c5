"""Says whether new photos are like those that a model was trained on, and if not, what may be the cause.

python -m insight.drift --model_dir out/training/model --input_path new_photos/ --output_path out/drift
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.console import require_printed
from configs.counts import counted
from configs.csv_text import csv_text
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, option, same_option
from configs.printed_commands import program_command
from configs.program import begins_again, run_program
from configs.rules import Number, RepeatedPaths, Switch
from configs.written_tables import DRIFT_COLUMNS
from insight.options import PageOptions, SetOptions, parse_options
from trainer.options import Path

if TYPE_CHECKING:
    from insight.drifting.comparison import Comparison
    from insight.drifting.new_photos import NewPhotos
    from trainer.data.training_sketch import TrainingSketch
    from trainer.export.model_info import ModelInfo

PAGE_NAME, TABLE_NAME, RESULT_NAME = "drift.html", "drift.csv", "drift.json"
# As `diff` does: 0 if nothing differs, 1 if something does, 2 for trouble.
EXIT_DRIFT = 1
_NUM_SHOWN = 20
_THUMBNAIL_SIDE = 150
# So many photos that cannot be read are printed; drift.json names all.
_NUM_PRINTED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftOptions(PageOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    model_dir: str = option(
        REQUIRED,
        Path("a folder", "read"),
        help="the model that `hugs train` wrote, local or gs://; it holds a sketch of its training set",
        decides="neither",
        metavar="DIR",
    )
    input_path: tuple[str, ...] = option(
        (),
        RepeatedPaths(),
        help="new photos: image files, folders and globs of them, or lists with the image in the first column; local, "
        "gs:// or s3://. They are embedded here, by the model's network; of more than 2,000 so many are sampled",
        decides="neither",
        metavar="PHOTO|FOLDER|LIST",
    )
    data_paths: tuple[str, ...] = same_option(
        SetOptions,
        "data_paths",
        default=(),
        help="finished record sets of new photos, in place of --input_path: shards, globs or set prefixes; repeat or "
        "separate by commas",
    )
    weights: str | None = option(
        None,
        Path("a file", "read", or_name=True),
        help="weights of the model's network for --input_path, if they are not where the model says; their digest must "
        "be that of the model",
        decides="neither",
        metavar="FILE",
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.input_path) == bool(self.data_paths):
            raise InputError(
                "Pass the new photos as --input_path, or their finished record sets as --data_paths; one of the two."
            )
        if self.weights is not None and not self.input_path:
            raise InputError("--weights: belongs to --input_path, and none is given. Records need no network.")
        for name in ("input_dict", "photo_dirs"):
            if getattr(self, name) and not self.data_paths:
                raise InputError(f"--{name}: belongs to --data_paths, and none is given.")


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
        epilog="The new photos need no labels. A new class is seen only if there are enough photos of it: the test is "
        "honest and cannot see everything.",
    )
    with begins_again():
        return _run(options)


def _run(options: DriftOptions) -> int:
    from insight.drifting.comparison import compare
    from insight.pages.output_folder import OutputFolder
    from trainer.export.classifier import read_model_info
    from trainer.export.sketch_file import read_sketch

    output = OutputFolder(options.output_path, [PAGE_NAME, TABLE_NAME, RESULT_NAME], overwrite=options.overwrite)
    info = read_model_info(options.model_dir)
    sketch = read_sketch(options.model_dir, info)
    photos = _named_photos(options, info) if options.input_path else _recorded_photos(options, info, sketch)
    _report_unread(photos)
    comparison = compare(sketch, photos, info=info, alarm_level=options.alarm_level)

    result = {
        "model_dir": options.model_dir,
        "input_path": list(options.input_path),
        "data_paths": list(options.data_paths),
        "new_photos": photos.total,
        "training_photos": sketch.num_photos,
        **comparison.to_json(),
        "photos_repeated": photos.repeated,
        "failed": [{"location": one.location, "message": one.message} for one in photos.unread],
    }
    output.write(TABLE_NAME, _table(comparison, photos))
    output.write(PAGE_NAME, _page(comparison, photos, options))
    output.write(RESULT_NAME, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for line in comparison.lines:
        print(line)
    if photos.unread:
        print(f"failed:  {counted(len(photos.unread), 'photo')} could not be read; {RESULT_NAME} names all of them")
    print(f"page:    {output.path(PAGE_NAME)}")
    print(f"table:   {output.path(TABLE_NAME)}")
    if comparison.drift:
        print(
            f"next:    look at the page; label some of these photos, and train with them: "
            f"{program_command('next', '--help')}"
        )
    require_printed()
    return EXIT_DRIFT if comparison.drift and options.fail_on_drift else EXIT_OK


def _recorded_photos(options: DriftOptions, info: ModelInfo, sketch: TrainingSketch) -> NewPhotos:
    """The new photos of record sets. Raises InputError, also if another network made them."""
    from insight.data.embedded_photos import read_embedded_photos
    from insight.data.photo_files import PhotoFiles
    from insight.drifting.new_photos import photos_of_records
    from preprocess.images.decode import IMAGE_SIZE
    from preprocess.records.backbone_identity import difference_of

    photos = read_embedded_photos(options.find_sets(), flag="data_paths")
    made_by = photos.sets[0].manifest.backbone
    if not made_by.agrees_with(info.backbone):
        raise InputError(
            f"--data_paths: the record set {photos.sets[0].prefix} comes from another network than the model in "
            f"{options.model_dir}: {difference_of(info.backbone, made_by)}. Pass the photos themselves as "
            "--input_path, or embed them with the model's network."
        )
    return photos_of_records(
        photos,
        PhotoFiles(photos, options.photo_dirs),
        image_size=info.image.size if info.takes_images else IMAGE_SIZE,
        reads=len(sketch.statistics) > 0,
    )


def _named_photos(options: DriftOptions, info: ModelInfo) -> NewPhotos:
    """The new photos that --input_path names, embedded. Raises InputError, also if the network is not here."""
    from insight.drifting.comparison import require_enough
    from insight.drifting.new_photos import MAX_STATISTICS, photos_of_files, sample_of
    from insight.queries.named_photos import read_and_embed
    from insight.queries.query_photos import engine_of
    from trainer.photo_reader import named_photos

    named = list(named_photos(options.input_path, info.labels, flag="--input_path", must_exist=True))
    require_enough(len(named), "--input_path: names")
    engine = engine_of(
        info.backbone,
        weights=options.weights,
        flag="model_dir",
        whose=f"the records of the model in {options.model_dir}",
        otherwise="Embed them where the network is, and pass their record sets as --data_paths.",
    )
    sample = [named[row] for row in sample_of(len(named)).tolist()]
    found = read_and_embed(
        [location for _, location in sample], engine, size=info.image.size, max_statistics=MAX_STATISTICS
    )
    return photos_of_files(found, sample, total=len(named))


def _report_unread(photos: NewPhotos) -> None:
    for one in photos.unread[:_NUM_PRINTED]:
        words = one.message if one.location in one.message else f"{one.location}: {one.message}"
        print(f"error: {words}", file=sys.stderr)
    if len(photos.unread) > _NUM_PRINTED:
        print(
            f"error: and {counted(len(photos.unread) - _NUM_PRINTED, 'photo')} more could not be read", file=sys.stderr
        )


def _table(comparison: Comparison, photos: NewPhotos) -> str:
    """drift.csv: all new photos that were compared, those that are behind the difference first."""
    return csv_text(
        DRIFT_COLUMNS,
        (
            [
                photos.uris[photo.place],
                photos.digests[photo.place] or "",
                f"{photo.unusual:.4f}",
                f"{photo.similarity:.4f}",
                photo.like,
                photos.location(photo.place),
            ]
            for photo in comparison.ranked
        ),
    )


def _page(comparison: Comparison, photos: NewPhotos, options: DriftOptions) -> str:
    from insight.pages.html_page import render_page

    shown = []
    for photo in comparison.ranked[:_NUM_SHOWN]:
        thumbnail = photos.thumbnail(photo.place, side=_THUMBNAIL_SIDE)
        shown.append({"uri": photos.uris[photo.place], "thumbnail": thumbnail, "like": photo.like})
    return render_page(
        "drift.html",
        title="Are these photos like those of the training?",
        comparison=comparison,
        shown=shown,
        model_dir=options.model_dir,
        paths=options.input_path or options.data_paths,
        counted_photos=counted(photos.total, "new photo"),
        unread=photos.unread,
    )


if __name__ == "__main__":
    run_program(main)
