"""Says which unlabelled photos to label next, and what that would bring.

python -m insight.next --data_paths data/preproc/train,data/preproc/pool --n 100 --output_path out/next
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.console import require_printed
from configs.counts import counted
from configs.csv_text import csv_text
from configs.errors import EXIT_OK, InputError
from configs.option import option
from configs.program import run_program
from configs.rules import Whole
from configs.written_tables import NEXT_COLUMNS
from insight.options import PageOptions, parse_options
from trainer.options import Path
from trainer.storage.files import cause_of, storage

if TYPE_CHECKING:
    from insight.data.embedded_photos import EmbeddedPhotos
    from insight.data.photo_files import PhotoFiles
    from insight.selection.choose import Choice
    from insight.selection.expected_gain import ExpectedGain

PAGE_NAME, TABLE_NAME, RESULT_NAME = "next.html", "next.csv", "next.json"
_THUMBNAIL_SIDE = 200
_MAX_THUMBNAILS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextOptions(PageOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    n: int = option(100, Whole(1), help="how many photos to choose", decides="neither")
    seed: int = option(0, Whole(0), help="of the choice; the same seed chooses the same photos", decides="neither")
    previous: str | None = option(
        None,
        Path("a file", "read"),
        help="next.json of the time before: what it expected is compared with what is measured now",
        decides="neither",
        metavar="FILE",
        default_words="next.json in output_path, if --overwrite is given",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: an argument is wrong, there is no unlabelled photo, or the output cannot be written.
    """
    options = parse_options(
        argv,
        NextOptions,
        module="insight.next",
        description="Says which unlabelled photos to label next, and what that would bring.",
        epilog="Embed the photos without labels with the same network and the same dict.txt (rows without a label are "
        "allowed), and name their set beside the labelled one. Labels that you give on the page are taken by "
        "`train --corrections` without embedding anything again.",
    )
    import numpy as np

    from insight.data.embedded_photos import read_embedded_photos
    from insight.data.joined_groups import equal_files
    from insight.data.photo_files import PhotoFiles
    from insight.label_errors.features import principal_features
    from insight.next_commands import LABELS_NAME, training_step
    from insight.pages.output_folder import OutputFolder
    from insight.selection.choose import choose, head_scores
    from insight.selection.expected_gain import expected_gain

    sets = options.find_sets()
    output = OutputFolder(options.output_path, [PAGE_NAME, TABLE_NAME, RESULT_NAME], overwrite=options.overwrite)
    before = _previous(options, output.path(RESULT_NAME))
    photos = read_embedded_photos(sets, flag="data_paths")
    labelled, unlabelled, num_copies = _parts(photos)
    if not len(unlabelled):
        raise InputError(
            f"--data_paths: none of the {counted(len(photos), 'record')} is a photo without a label, so there is none "
            "to label next. Embed the photos that have no label yet with the same --input_dict, and name their set too."
        )
    # The same turning for both parts, so that they can be compared.
    together = np.concatenate([labelled, unlabelled])
    features = principal_features(photos.embeddings[together])
    of_labelled, of_unlabelled = features[: len(labelled)], features[len(labelled) :]
    label_ids = photos.first_label_ids[labelled]
    num_labels = len(photos.labels)
    scores = head_scores(features, np.arange(len(labelled)), label_ids, num_labels)
    counts = np.bincount(label_ids, minlength=num_labels)
    choice = choose(
        of_unlabelled,
        None if scores is None else scores[len(labelled) :],
        counts,
        options.n,
        seed=options.seed,
    )
    # A photo that is there twice would be in both parts of the cross-validation, and be known before it is asked for.
    once = np.unique(equal_files(photos.image_digests[labelled]))
    gain = expected_gain(of_labelled[once], label_ids[once], len(choice.rows), num_labels=num_labels, seed=options.seed)
    rows = unlabelled[choice.rows]

    files = PhotoFiles(photos, options.photo_dirs)
    result = {
        "labelled": len(labelled),
        "unlabelled": len(unlabelled),
        "copies_left_out": num_copies,
        "chosen": len(rows),
        "labelled_by_class": dict(zip(photos.labels, counts.tolist(), strict=True)),
        "expected_gain": None if gain is None else dataclasses.asdict(gain),
        "previous": before,
    }
    lines = _lines(result, gain, before)
    output.write(TABLE_NAME, _table(choice, rows, photos, files))
    output.write(PAGE_NAME, _page(choice, rows, photos, files, lines))
    output.write(RESULT_NAME, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    step = training_step(photos.sets, input_dict=options.input_dict, output_path=options.output_path, table=LABELS_NAME)
    for line in lines:
        print(line)
    print(f"page:    {output.path(PAGE_NAME)}")
    print(f"table:   {output.path(TABLE_NAME)}")
    print(f"next:    label them on the page, which saves {LABELS_NAME}")
    print(f"then:    {step}")
    require_printed()
    return EXIT_OK


def _parts(photos: EmbeddedPhotos) -> tuple[Any, Any, int]:
    """The rows of labelled photos and of unlabelled ones, int64; and how many copies of other photos are left out."""
    import numpy as np

    has_label = photos.label_counts > 0
    labelled, candidates = np.flatnonzero(has_label), np.flatnonzero(~has_label)
    seen = {digest for row in labelled.tolist() if (digest := photos.digest_of(row))}
    kept = []
    for row in candidates.tolist():
        digest = photos.digest_of(row)
        if digest is None or digest not in seen:
            kept.append(row)
            seen.add(digest or "")
    return labelled, np.array(kept, np.int64), len(candidates) - len(kept)


def _previous(options: NextOptions, own: str) -> dict[str, Any] | None:
    """What the time before expected: `labelled`, `chosen` and `expected_gain`; None if it is not known."""
    path = options.previous
    try:
        if path is None and (not options.overwrite or own not in storage().match(own)):
            return None
        found = json.loads(storage().read(path or own))
        gain = found["expected_gain"]
        expected = None if gain is None else [float(gain["expected"]), *map(float, gain["expected_interval"])]
        return {"labelled": int(found["labelled"]), "chosen": int(found["chosen"]), "expected": expected}
    except OSError as error:
        raise InputError(f"--previous: cannot read {path or own}: {cause_of(error)}.") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"--previous: {path or own} is not a next.json that this program wrote.") from error


def _lines(result: dict[str, Any], gain: ExpectedGain | None, before: dict[str, Any] | None) -> list[str]:
    """What the program prints, and the page says."""
    copies = result["copies_left_out"]
    left_out = f" ({counted(copies, 'copy', 'copies')} of other photos left out)" if copies else ""
    lines = [
        f"{counted(result['chosen'], 'photo')} to label next, of {result['unlabelled']:,} without a label{left_out}; "
        f"{result['labelled']:,} have one."
    ]
    if gain is None:
        lines.append("What they will bring cannot be said yet: for that, 20 labelled photos of two classes are needed.")
    else:
        low, high = gain.expected_interval
        first, last = gain.gain_interval
        lines.append(
            f"Now the accuracy is about {gain.accuracy:.1%} (by cross-validation). With {result['chosen']} more labels "
            f"it should be about {gain.expected:.1%} (90 % interval {low:.1%} to {high:.1%}): "
            f"{100 * first:.1f} to {100 * last:.1f} points more."
        )
    if before is not None and before["expected"] and gain is not None and result["labelled"] > before["labelled"]:
        expected, low, high = before["expected"]
        inside = "as expected" if low <= gain.accuracy <= high else "not as expected"
        lines.append(
            f"Last time, {before['labelled']:,} photos had labels, and about {expected:.1%} was expected with "
            f"{before['chosen']:,} more ({low:.1%} to {high:.1%}). Now {result['labelled']:,} have labels, and the "
            f"accuracy is about {gain.accuracy:.1%}: {inside}."
        )
    return lines


def _why(choice: Choice, place: int, labels: Sequence[str]) -> str:
    """Why a photo was chosen, in words."""
    count = int(choice.stands_for[place])
    others = f"; {counted(count - 1, 'photo')} like it" if count > 1 else ""
    if choice.proposed[place] < 0:
        return f"unlike the others chosen{others}"
    first, second = labels[choice.proposed[place]], labels[choice.runner_up[place]]
    return f"{first} or {second}? ({choice.scores[place]:.0%}){others}"


def _table(choice: Choice, rows: Any, photos: EmbeddedPhotos, files: PhotoFiles) -> str:
    """next.csv: the chosen photos, the most wanted first. `label` is empty, to be filled in."""
    return csv_text(
        NEXT_COLUMNS,
        (
            [
                photos.uris[row],
                photos.digest_of(row) or "",
                "",
                "" if choice.proposed[place] < 0 else photos.labels[choice.proposed[place]],
                "" if math.isnan(choice.scores[place]) else f"{choice.scores[place]:.4f}",
                int(choice.stands_for[place]),
                _why(choice, place, photos.labels),
                files.location(row),
            ]
            for place, row in enumerate(rows.tolist())
        ),
    )


def _page(choice: Choice, rows: Any, photos: EmbeddedPhotos, files: PhotoFiles, lines: Sequence[str]) -> str:
    from configs.activity import doing
    from insight.next_commands import LABELS_NAME
    from insight.pages.html_page import page_id, render_page

    shown = []
    with doing("reading photos for the page", total=min(len(rows), _MAX_THUMBNAILS), unit="photo") as reading:
        for place, row in enumerate(rows[:_MAX_THUMBNAILS].tolist()):
            shown.append(
                {
                    "uri": photos.uris[row],
                    "sha256": photos.digest_of(row) or "",
                    "thumbnail": files.thumbnail(row, side=_THUMBNAIL_SIDE),
                    "why": _why(choice, place, photos.labels),
                }
            )
            reading.advance()
    return render_page(
        "next.html",
        title="Photos to label next",
        scripts=["decisions.js", "next.js"],
        data={
            "id": page_id([list(photos.labels), [one["uri"] for one in shown]]),
            "labels": list(photos.labels),
            "file": LABELS_NAME,
            "photos": [{key: one[key] for key in ("uri", "sha256")} for one in shown],
        },
        lines=lines,
        shown=shown,
        labels=photos.labels,
        file=LABELS_NAME,
        num_more=len(rows) - len(shown),
    )


if __name__ == "__main__":
    run_program(main)
