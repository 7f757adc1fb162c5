"""Draws a map of photos: one page that opens offline, with similar photos near each other.

hugs map --data_paths data/preproc/train --output_path data/map
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.choices import ReducerName
from configs.counts import counted
from configs.csv_text import LABEL_SEPARATOR
from configs.errors import EXIT_OK, InputError
from configs.option import option
from configs.program import begins_again, run_program
from configs.rules import OneOf, Whole
from insight.options import PageOptions, parse_options
from trainer.options import Path, Paths

if TYPE_CHECKING:
    import numpy as np

    from insight.data.embedded_photos import EmbeddedPhotos
    from insight.data.photo_files import PhotoFiles

PAGE_NAME, TABLE_NAME = "map.html", "map.csv"
# What the thumbnails may take of a page that has to stay below 20 MB: with 50,000 photos all else takes about 5 MB.
_SHEET_BYTES = 12_000_000

_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions(PageOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    predictions: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="predictions.csv of a training, or CSV files of `hugs predict_all`: the map then shows what is wrong",
        decides="neither",
        metavar="FILE",
    )
    previous: str | None = option(
        None,
        Path("a file", "read"),
        help="map.csv of an earlier map; its photos stay where they were, and others find their place among them",
        decides="neither",
        metavar="FILE",
    )
    reducer: ReducerName = option(
        "auto",
        OneOf.of(ReducerName),
        help="tsne shows neighbourhoods; pca is the two main directions; auto takes tsne if it is installed",
        decides="neither",
    )
    thumbnails: int = option(
        2000,
        Whole(0, 20_000),
        help="photos that get a thumbnail in the page; of others the page shows the file itself, if it is there",
        decides="neither",
    )
    max_photos: int = option(
        50_000,
        Whole(2, 200_000),
        help="photos on the map; of more, a part is taken that stays the same when photos are added",
        decides="neither",
    )
    seed: int = option(0, Whole(0, _MAX_SEED), help="of the random numbers of tsne", decides="neither")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: an argument is wrong, or a set cannot be read.
    """
    options = parse_options(argv, MapOptions, module="insight.map", description=(__doc__ or "").partition("\n\n")[0])
    with begins_again():
        return _run(options)


def _run(options: MapOptions) -> int:
    # Imported here so that --help and wrong flags answer at once.
    from insight.data.embedded_photos import read_embedded_photos
    from insight.data.given_predictions import read_predictions
    from insight.data.photo_files import PhotoFiles
    from insight.data.set_names import set_names
    from insight.layout.map_table import earlier_positions, table_text
    from insight.layout.positions import place
    from insight.pages.html_page import render_page
    from insight.pages.map_data import map_data
    from insight.pages.output_folder import OutputFolder
    from insight.pages.sprite_sheets import make_sheets

    # The earlier map may be the one that is replaced, so it is read before.
    sets = options.find_sets()
    folder = OutputFolder(options.output_path, [PAGE_NAME, TABLE_NAME], overwrite=options.overwrite)
    said = read_predictions(options.predictions)
    every = read_embedded_photos(sets, flag="data_paths")
    photos = _some(every, options.max_photos)
    earlier = None if options.previous is None else earlier_positions(options.previous, photos)
    predicted, is_wrong = _compared(photos, said)
    layout = place(photos.embeddings, reducer=options.reducer, seed=options.seed, earlier=earlier)
    files = PhotoFiles(photos, options.photo_dirs)
    sheets = make_sheets(
        [(files.finder_of(row), photos.uris[row], photos.digest_of(row)) for row in range(len(photos))],
        _first_by_content(photos, options.thumbnails),
        max_bytes=_SHEET_BYTES,
    )
    names = set_names(photos.sets)
    shift = None if layout.mean_shift is None else f"{100 * layout.mean_shift:.1f} %"
    page = render_page(
        "map.html",
        title="Map of photos",
        scripts=["map.js"],
        data=map_data(
            photos,
            layout.positions,
            set_names=names,
            links=_links(photos, files),
            sheets=sheets,
            predicted=predicted,
            is_wrong=is_wrong,
        ),
        num_photos=len(photos),
        num_records=len(every),
        set_names=names,
        backbone=photos.sets[0].manifest.backbone,
        layout=layout,
        shift=shift,
        num_compared=None if is_wrong is None else int((is_wrong >= 0).sum()),
        num_wrong=None if is_wrong is None else int((is_wrong == 1).sum()),
    )
    folder.write(TABLE_NAME, table_text(photos, layout.positions, set_names=names))
    folder.write(PAGE_NAME, page)
    by = {"tsne": "t-SNE", "pca": "principal components"}[layout.reducer]
    print(f"{counted(len(photos), 'photo')} on the map, by {by}: {folder.path(PAGE_NAME)}")
    if len(photos) < len(every):
        print(f"The sets have {counted(len(every), 'record')}; --max_photos says how many are shown.")
    if layout.why and options.reducer == "auto":
        print(f"Why not t-SNE: {layout.why}")
    if shift is not None:
        print(f"Photos of the earlier map moved by {shift} of its width, on average.")
    print(f"The positions, for a later --previous: {folder.path(TABLE_NAME)}")
    return EXIT_OK


def _some(photos: EmbeddedPhotos, most: int) -> EmbeddedPhotos:
    """At most so many of the photos, in their order: those whose content has the smallest digests."""
    import numpy as np

    return photos if len(photos) <= most else photos.at(np.sort(_first_by_content(photos, most)))


def _first_by_content(photos: EmbeddedPhotos, most: int) -> np.ndarray:
    """Rows of at most so many photos, int64: a sample that depends on nothing but the photos themselves."""
    import hashlib

    import numpy as np

    keys = photos.image_digests[:, :8].copy().view(">u8")[:, 0].astype(np.uint64)
    for row in np.flatnonzero(~photos.image_digests.any(axis=1)).tolist():
        name = str(photos.uris[row]).encode("utf-8", "surrogateescape")
        keys[row] = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return np.argsort(keys, kind="stable")[:most]


def _compared(photos: EmbeddedPhotos, said: dict[str, str]) -> tuple[list[str | None] | None, np.ndarray | None]:
    """What was predicted of each photo, and whether that is wrong: int8, 1 for wrong, 0 for right, -1 for unknown."""
    import numpy as np

    if not said:
        return None, None
    predicted = [said.get(uri) for uri in photos.uris]
    if not any(answer is not None for answer in predicted):
        raise InputError(
            "--predictions: none of its photos is in --data_paths, by the URIs of the lists. Is it of other sets?"
        )
    is_wrong = np.full(len(photos), -1, np.int8)
    for row, answer in enumerate(predicted):
        labels = photos.labels_of(row)
        if answer is not None and labels:
            # An answer of several labels has to have all of them; one label has to be one of those of the photo.
            right = answer in labels or set(answer.split(LABEL_SEPARATOR)) == set(labels)
            is_wrong[row] = not right
    return predicted, is_wrong


def _links(photos: EmbeddedPhotos, files: PhotoFiles) -> list[str]:
    from preprocess.storage.uris import is_web
    from trainer.data.photos import link_to

    links = []
    for row, uri in enumerate(photos.uris):
        location = uri if is_web(uri) else files.location(row)
        links.append(location if is_web(location) else link_to(location) if location else "")
    return links


if __name__ == "__main__":
    run_program(main)
