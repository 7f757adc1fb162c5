"""Writes twins.csv, and says which sets share photos: its rows are read by `preprocess.records.twin_groups`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from configs.csv_text import LABEL_SEPARATOR, csv_text
from configs.written_tables import TWIN_COLUMNS
from insight.copies.find import Twin
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.set_names import set_names

Group = tuple[Twin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leak:
    """The photos that two sets share.

    Attributes:
      sets: the names of the two sets.
      photos: for each of them, how many of its photos have a copy in the other.
      example: the two rows of one pair.
    """

    sets: tuple[str, str]
    photos: tuple[int, int]
    example: tuple[Twin, Twin]


def labels_differ(photos: EmbeddedPhotos, group: Group) -> bool:
    """Whether photos of a group have different labels. A photo without a label contradicts none."""
    labels = {frozenset(photos.labels_of(twin.row)) for twin in group}
    return len(labels - {frozenset()}) > 1


def sets_of(photos: EmbeddedPhotos, group: Group) -> list[int]:
    """The numbers of the sets that a group has photos of, ascending."""
    return sorted({int(photos.set_numbers[twin.row]) for twin in group})


def in_order_of_interest(photos: EmbeddedPhotos, groups: Sequence[Group]) -> list[Group]:
    """The groups: first those with photos of several sets, then those with different labels, then the largest."""
    return sorted(
        groups,
        key=lambda group: (
            -len(sets_of(photos, group)),
            not labels_differ(photos, group),
            -len(group),
            group[0].row,
        ),
    )


def twin_table(photos: EmbeddedPhotos, groups: Sequence[Group]) -> str:
    """The table as CSV: a line for each photo that has a copy.

    Columns: `image_uri`; `image_sha256`, the first 16 bytes of the digest of the file, empty if it is not known;
    `group`, a number; `set`; `label`, several separated by " | "; `kind`, how the photo is known to be a copy of the
    first one of its group (`find.Kind`); `hash_bits`, in how many of 256 bits their hashes differ, empty if one has
    none; `similarity` of their embeddings.
    """
    names = set_names(photos.sets)
    return csv_text(
        TWIN_COLUMNS,
        (
            [
                photos.uris[twin.row],
                photos.digest_of(twin.row) or "",
                number,
                names[int(photos.set_numbers[twin.row])],
                LABEL_SEPARATOR.join(photos.labels_of(twin.row)),
                twin.kind.value,
                "" if twin.bits is None else twin.bits,
                f"{twin.similarity:.4f}",
            ]
            for number, group in enumerate(groups, start=1)
            for twin in group
        ),
    )


def find_leaks(photos: EmbeddedPhotos, groups: Sequence[Group]) -> list[Leak]:
    """For each two sets that share photos: which ones."""
    names = set_names(photos.sets)
    counts: dict[tuple[int, int], list[int]] = {}
    examples: dict[tuple[int, int], tuple[Twin, Twin]] = {}
    for group in groups:
        by_set: dict[int, list[Twin]] = {}
        for twin in group:
            by_set.setdefault(int(photos.set_numbers[twin.row]), []).append(twin)
        for one, other in itertools.combinations(sorted(by_set), 2):
            found = counts.setdefault((one, other), [0, 0])
            found[0] += len(by_set[one])
            found[1] += len(by_set[other])
            examples.setdefault((one, other), (by_set[one][0], by_set[other][0]))
    return [
        Leak(sets=(names[one], names[other]), photos=(found[0], found[1]), example=examples[one, other])
        for (one, other), found in sorted(counts.items())
    ]
