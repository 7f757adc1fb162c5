"""Finds photos that are copies of each other, within a record set and across sets.

Usage: python -m insight.twins --data_paths data/preproc/train,data/preproc/eval --output_path out/twins
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from configs.activity import doing
from configs.console import require_printed
from configs.counts import counted
from configs.errors import EXIT_OK, InputError
from configs.option import option
from configs.program import run_program
from configs.rules import OneOf
from insight.options import PageOptions, parse_options
from preprocess.records.twin_groups import TWINS_NAME

if TYPE_CHECKING:
    from insight.copies.find import Twins
    from insight.copies.twin_table import Group, Leak
    from insight.data.embedded_photos import EmbeddedPhotos
    from insight.data.photo_files import PhotoFiles

PAGE_NAME = "twins.html"
# Comparing all embeddings of more photos than this takes longer than a quarter of an hour of two cores.
_MOST_COMPARED = 200_000
# What the page shows. The table has all of it.
_GROUPS_SHOWN, _PHOTOS_SHOWN, _THUMBNAILS = 200, 12, 600
_SIDE = 112
_LEAKS_PRINTED = 12

Embeddings = Literal["auto", "on", "off"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwinsOptions(PageOptions):
    """What `hugs twins` reads and writes."""

    embeddings: Embeddings = option(
        "auto",
        OneOf.of(Embeddings),
        help="whether embeddings are compared, too: they find crops, and copies in sets without hashes. auto: in up to "
        f"{_MOST_COMPARED:,} photos, since each is compared with all others",
        decides="neither",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: the flags, the record sets or the output folder are wrong.
    """
    options = parse_options(
        argv,
        TwinsOptions,
        module="insight.twins",
        description="Finds photos that are copies of each other, within a record set and across sets: re-encoded, "
        "resized, brightened, mirrored, cropped, or shots of one burst. Writes twins.csv, which `hugs train --twins` "
        "and `hugs ingest --group_by` take, and a page.",
    )
    from insight.copies.find import find_twins  # here: without it, --help does not wait for NumPy
    from insight.copies.twin_table import find_leaks, in_order_of_interest, twin_table
    from insight.data.embedded_photos import read_embedded_photos
    from insight.pages.output_folder import OutputFolder

    sets = options.find_sets()
    output = OutputFolder(options.output_path, (TWINS_NAME, PAGE_NAME), overwrite=options.overwrite)
    photos = read_embedded_photos(sets, flag="data_paths")
    by_embedding = options.embeddings == "on" or (options.embeddings == "auto" and len(photos) <= _MOST_COMPARED)
    if not by_embedding and not photos.image_hashes.any():
        raise InputError(
            "--embeddings: the records of these sets have no perceptual hashes, because an earlier version made them, "
            f"so only embeddings can be compared, of {counted(len(photos), 'photo')} with each other. Pass "
            "--embeddings on, or make the sets again with --overwrite and --embedding_cache."
        )
    found = find_twins(photos, by_embedding=by_embedding)
    groups = in_order_of_interest(photos, found.groups)
    leaks = find_leaks(photos, groups)
    output.write(TWINS_NAME, twin_table(photos, groups))
    output.write(PAGE_NAME, _page(photos, found, groups, leaks, options))
    print("\n".join(_summary(photos, found, groups, leaks)))
    print(f"table:  {output.path(TWINS_NAME)}")
    print(f"page:   {output.path(PAGE_NAME)}")
    for word, step in _next_steps(photos, groups, leaks, table=output.path(TWINS_NAME), options=options):
        print(f"{word + ':':<7} {step}")
    require_printed()
    return EXIT_OK


def _next_steps(
    photos: EmbeddedPhotos, groups: Sequence[Group], leaks: Sequence[Leak], *, table: str, options: TwinsOptions
) -> Iterator[tuple[str, str]]:
    """What to do about sets that share photos, and about different labels; each with a word before it."""
    from insight.copies.twin_table import labels_differ
    from insight.next_commands import audit_step, training_step

    if leaks:
        yield (
            "next",
            training_step(
                photos.sets,
                input_dict=options.input_dict,
                output_path=options.output_path,
                flag="twins",
                table=table,
            ),
        )
        # Nothing says from which folder of photos the lists were made.
        yield (
            "or",
            f"make the lists again as before, and add --group_by {shlex.quote(table)} to the flags of `hugs ingest`: "
            "all photos of a group are then in one list",
        )
    if any(labels_differ(photos, group) for group in groups):
        yield (
            "labels",
            audit_step(photos.sets, input_dict=options.input_dict, group_by=table, output_path=options.output_path),
        )


def _summary(photos: EmbeddedPhotos, found: Twins, groups: Sequence[Group], leaks: Sequence[Leak]) -> list[str]:
    from insight.copies.find import Kind
    from insight.copies.twin_table import labels_differ

    number = sum(map(len, groups))
    lines = [
        f"{counted(number, 'photo')} of {len(photos):,} in {counted(len(groups), 'group')} of copies"
        if groups
        else f"no copies among {counted(len(photos), 'photo')}"
    ]
    words = {
        Kind.EQUAL: "equal files",
        Kind.COPY: "re-encoded, resized or brightened",
        Kind.MIRRORED: "mirrored",
        Kind.SIMILAR: "cropped or otherwise alike",
    }
    for kind, what in words.items():
        if count := sum(twin.kind is kind for group in groups for twin in group):
            lines.append(f"  {count:>7,}  {what}")
    if contradicting := sum(labels_differ(photos, group) for group in groups):
        have = "has" if contradicting == 1 else "have"
        lines.append(f"warning: {counted(contradicting, 'group')} {have} photos with different labels")
    if only_similar := sum(map(_only_similar, groups)):
        lines.append(
            f"{counted(only_similar, 'group is', 'groups are')} alike only by what the network sees: look at the page, "
            "they may be different photos"
        )
    for leak in leaks[:_LEAKS_PRINTED]:
        one, other = (photos.uris[twin.row] for twin in leak.example)
        lines.append(
            f"warning: {leak.sets[0]} and {leak.sets[1]} share photos: {leak.photos[0]:,} of {leak.sets[0]} and "
            f"{leak.photos[1]:,} of {leak.sets[1]}, such as {one} and {other}"
        )
    if len(leaks) > _LEAKS_PRINTED:
        lines.append(f"warning: … and {len(leaks) - _LEAKS_PRINTED} more pairs of sets share photos")
    return [*lines, *limits_in_words(photos, found)]


def limits_in_words(photos: EmbeddedPhotos, found: Twins) -> list[str]:
    """What was compared and from where on two photos count as copies."""
    lines = []
    if found.most_bits is not None:
        lines.append(
            f"hashes: at most {found.most_bits} of 256 bits differ"
            if found.most_bits >= 0
            else "hashes: they say nothing here, because different photos of these sets have nearly the same one"
        )
    if found.num_hashed < len(photos):
        without = len(photos) - found.num_hashed
        lines.append(
            f"hashes: {counted(without, 'photo')} of {len(photos):,} have none, so mirrored copies may be missing"
        )
    if found.least_score is not None:
        lines.append(
            f"embeddings: a score of at least {found.least_score:.2f}, which by chance at most about "
            f"{100 * found.false_share:g} % of all photos reach, as estimated from these photos"
        )
    else:
        lines.append("embeddings: not compared, so crops are not found")
    return lines


def _page(
    photos: EmbeddedPhotos, found: Twins, groups: Sequence[Group], leaks: Sequence[Leak], options: TwinsOptions
) -> str:
    from insight.copies.twin_table import labels_differ, sets_of
    from insight.data.photo_files import PhotoFiles
    from insight.data.set_names import set_names
    from insight.pages.html_page import render_page

    names = set_names(photos.sets)
    files = PhotoFiles(photos, options.photo_dirs)
    left = _THUMBNAILS
    only_similar = [_only_similar(group) for group in groups]
    shown = []
    with doing("making thumbnails", total=min(left, sum(map(len, groups))), unit="photo") as progress:
        for number, group in enumerate(groups[:_GROUPS_SHOWN], start=1):
            cards = []
            for twin in group[:_PHOTOS_SHOWN]:
                left -= 1
                cards.append(_card(photos, twin, files if left >= 0 else None, names))
                progress.advance(1)
            shown.append(
                {
                    "number": number,
                    "size": len(group),
                    "cards": cards,
                    "only_similar": only_similar[number - 1],
                    "labels_differ": labels_differ(photos, group),
                    "sets": [names[index] for index in sets_of(photos, group)],
                }
            )
    return render_page(
        "twins.html",
        title="Photos that are copies of each other",
        groups=shown,
        num_groups=len(groups),
        num_twins=sum(map(len, groups)),
        num_photos=len(photos),
        num_only_similar=sum(only_similar),
        num_contradicting=sum(labels_differ(photos, group) for group in groups),
        leaks=[{"sets": leak.sets, "photos": leak.photos} for leak in leaks],
        limits=limits_in_words(photos, found),
        table_name=TWINS_NAME,
    )


def _only_similar(group: Group) -> bool:
    """Whether nothing but the embeddings says that the photos of a group are copies."""
    from insight.copies.find import Kind

    return all(twin.kind in (Kind.FIRST, Kind.SIMILAR) for twin in group)


def _card(photos: EmbeddedPhotos, twin: Any, files: PhotoFiles | None, names: Sequence[str]) -> dict[str, Any]:
    return {
        "uri": str(photos.uris[twin.row]),
        "thumbnail": None if files is None else files.thumbnail(twin.row, side=_SIDE),
        "labels": photos.labels_of(twin.row),
        "set": names[int(photos.set_numbers[twin.row])],
        "kind": twin.kind.value,
        "bits": twin.bits,
        "similarity": twin.similarity,
    }


if __name__ == "__main__":
    run_program(main)
