"""Finds the photos of record sets that are most similar to a photo, by the network that made the records.

hugs search photo.jpg --data_paths data/preproc/train
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from configs.console import require_printed
from configs.counts import counted
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.file_uris import local_path_of
from configs.option import option, same_option
from configs.program import begins_again, run_program
from configs.rules import Arguments, Switch, Texts, Whole
from insight.options import SetOptions, parse_options
from trainer.options import DataOptions, Path

if TYPE_CHECKING:
    import numpy as np

    from insight.index.near_photo import NearPhoto
    from trainer.data.record_sets import RecordSet

PAGE_NAME = "search.html"


@dataclasses.dataclass(frozen=True)
class _AnyArguments(Arguments):
    """Any number of texts, which a command line gives without a flag; also none."""

    flag: ClassVar[dict[str, Any]] = {"nargs": "*"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions(SetOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule, or nothing to search with is given.
    """

    photos: tuple[str, ...] = option(
        (),
        _AnyArguments(),
        help="photos to search with: image files of any common format; local, gs:// or s3://",
        decides="neither",
        metavar="PHOTO",
        positional=True,
    )
    image_uri: tuple[str, ...] = option(
        (),
        Texts(),
        help="a photo of the sets to search with, by its URI as the list has it; may be repeated. It needs no network",
        decides="neither",
        metavar="URI",
    )
    count: int = option(10, Whole(1, 1000), help="photos to find for each", decides="neither")
    index: str | None = option(
        None,
        Path("a folder", "written"),
        help="local folder of an index: made at the first use, used while the sets are the same, extended when they "
        "grow. Without it, every search reads all records",
        decides="neither",
        metavar="DIR",
    )
    weights: str | None = option(
        None,
        Path("a file", "read", or_name=True),
        help="weights of the network, if they are not where the sets say; their digest must be that of the sets",
        decides="neither",
        metavar="FILE",
    )
    json: bool = option(False, Switch(can_be_unset=False), help="print one JSON object on each line", decides="neither")
    output_path: str | None = option(
        None,
        Path("a folder", "written"),
        help=f"folder for a page with the photos found ({PAGE_NAME}), local or gs://",
        decides="neither",
        metavar="DIR",
    )
    overwrite: bool = option(
        False, Switch(can_be_unset=False), help="replace the page of an earlier search", decides="neither"
    )
    photo_dirs: tuple[str, ...] = same_option(DataOptions, "photo_dirs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.photos and not self.image_uri:
            raise InputError("Pass a photo to search with, or --image_uri with the URI of a photo of the sets.")
        if self.index is not None and "://" in self.index:
            raise InputError(f"--index: must be a folder of this machine. Received: {self.index!r}.")
        if self.overwrite and self.output_path is None:
            raise InputError("--overwrite: belongs to --output_path, and none is given.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. It reports photos that cannot be read, and still searches with the others.

    Returns:
      0 if there was an answer for every photo, else 2.

    Raises:
      InputError: an argument is wrong, a set cannot be read, or its network is not here.
    """
    options = parse_options(
        argv, SearchOptions, module="insight.search", description=(__doc__ or "").partition("\n\n")[0]
    )
    with begins_again():
        return _run(options)


def _run(options: SearchOptions) -> int:
    # Imported here so that --help and wrong flags answer at once.
    import numpy as np

    from insight.index.photo_index import PhotoIndex, open_index, require_index_folder
    from insight.index.through_shards import ThroughShards
    from insight.pages.output_folder import OutputFolder
    from trainer.data.record_sets import require_agreement

    folder = None
    if options.output_path is not None:
        folder = OutputFolder(options.output_path, [PAGE_NAME], overwrite=options.overwrite)
    if options.index is not None:
        require_index_folder(options.index)
    sets = options.find_sets()
    require_agreement(sets)
    # Wrong photos and a missing network are found before records are read.
    names, digests, queries, all_usable = _photo_queries(options, sets)
    searched: PhotoIndex | ThroughShards = ThroughShards(sets)
    if options.index is not None:
        searched, done = open_index(options.index, sets)
        if done != "read":
            print(searched.describe(done, options.index), file=sys.stderr)
    for uri in options.image_uri:
        queries.append(searched.embedding_of(uri))
        names.append(uri)
        digests.append(None)
    if not queries:
        return EXIT_INPUT_ERROR
    # A photo of the sets is not its own answer, so one more is asked for.
    near = searched.nearest(np.stack(queries), options.count + 1)
    found = [
        _without(photos, uri=name if number >= len(names) - len(options.image_uri) else None)[: options.count]
        for number, (name, photos) in enumerate(zip(names, near, strict=True))
    ]
    for name, digest, photos in zip(names, digests, found, strict=True):
        _print(name, digest, photos, sets, as_json=options.json)
    if folder is not None:
        folder.write(PAGE_NAME, _page(names, digests, found, sets, options))
        print(f"{counted(len(names), 'search')} on a page: {folder.path(PAGE_NAME)}", file=sys.stderr)
    require_printed()  # The program exists to print what it finds.
    return EXIT_OK if all_usable else EXIT_INPUT_ERROR


def _photo_queries(
    options: SearchOptions, sets: Sequence[RecordSet]
) -> tuple[list[str], list[str | None], list[np.ndarray], bool]:
    """The names, digests and embeddings of the photos, and whether all of them could be read."""
    from insight.queries.query_photos import embed, engine_of, read_photo
    from preprocess.images.definition import ImageDefinition

    if not options.photos:
        return [], [], [], True
    identity = sets[0].manifest.backbone
    size = ImageDefinition.named(identity.image_definition).size if identity.is_known else 0
    photos = []
    for path in options.photos if size else ():
        try:
            photos.append(read_photo(local_path_of(path), size))
        except InputError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    if size and not photos:
        return [], [], [], False
    engine = engine_of(
        identity,
        weights=options.weights,
        flag="data_paths",
        whose=f"the records of {sets[0].prefix}",
        otherwise="Search with --image_uri, which names a photo of the set.",
    )
    embeddings = embed(photos, engine)
    digests: list[str | None] = [photo.digest for photo in photos]
    return [photo.path for photo in photos], digests, list(embeddings), len(photos) == len(options.photos)


def _without(photos: Sequence[NearPhoto], *, uri: str | None) -> list[NearPhoto]:
    """The photos found without the first one of a URI, which was searched with."""
    own = next((number for number, photo in enumerate(photos) if photo.uri == uri), None)
    return [photo for number, photo in enumerate(photos) if number != own]


def _print(
    name: str, digest: str | None, photos: Sequence[NearPhoto], sets: Sequence[RecordSet], *, as_json: bool
) -> None:
    if as_json:
        nearest = []
        for photo in photos:
            is_same = digest is not None and photo.digest == digest
            nearest.append({**photo.to_json(sets[photo.set_number].prefix), "same_file": is_same})
        print(json.dumps({"image": name, "nearest": nearest}, ensure_ascii=False))
        return
    print(name)
    for photo in photos:
        labels = ", ".join(photo.labels) or "no label"
        same = "  (the same file)" if digest is not None and photo.digest == digest else ""
        print(f"  {photo.similarity:6.3f}  {labels}  {photo.uri}{same}")


def _page(
    names: Sequence[str],
    digests: Sequence[str | None],
    found: Sequence[Sequence[NearPhoto]],
    sets: Sequence[RecordSet],
    options: SearchOptions,
) -> str:
    from insight.data.set_names import set_names
    from insight.pages.html_page import render_page
    from trainer.data.photos import PhotoFinder, finder_of_sets

    finders = [finder_of_sets([record_set], options.photo_dirs) for record_set in sets]
    own, set_name = PhotoFinder(), set_names(sets)
    searches = []
    for name, digest, photos in zip(names, digests, found, strict=True):
        cards = [
            {
                "near": photo,
                "set": set_name[photo.set_number],
                "same": digest is not None and photo.digest == digest,
                "thumbnail": finders[photo.set_number].thumbnail(photo.uri, photo.digest, side=224),
            }
            for photo in photos
        ]
        query = own.thumbnail(name, digest, side=224) if digest is not None else None
        if digest is None:
            query = next(filter(None, (finder.thumbnail(name, side=224) for finder in finders)), None)
        searches.append({"name": name, "thumbnail": query, "cards": cards})
    return render_page("search.html", title="Nearest photos", searches=searches, num_sets=len(sets))


if __name__ == "__main__":
    run_program(main)
