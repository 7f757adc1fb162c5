"""The headers of the tables that programs of the project write, by which such a table is told from a list of photos."""

from __future__ import annotations

from collections.abc import Sequence

# The photo and the SHA-256 of its file: the first columns of each table that programs of `insight` write.
PHOTO_COLUMNS = ("image_uri", "image_sha256")
NEXT_COLUMNS = (*PHOTO_COLUMNS, "label", "proposed_label", "score", "stands_for", "why", "location")
DRIFT_COLUMNS = (*PHOTO_COLUMNS, "unusual", "similarity", "like", "location")
TWIN_COLUMNS = (*PHOTO_COLUMNS, "group", "set", "label", "kind", "hash_bits", "similarity")
MAP_COLUMNS = (*PHOTO_COLUMNS, "label", "set", "x", "y")
_JUDGED = ("label", "proposed_label", "wrong", "label_score", "proposed_score")
SUSPECT_COLUMNS = (*PHOTO_COLUMNS, *_JUDGED, "neighbours_for", "neighbours_against", "twin_label", "why")

# What is seen of a table, by the columns that no other has.
_OF_PROGRAMS = {
    "next": NEXT_COLUMNS,
    "drift": DRIFT_COLUMNS,
    "twins": TWIN_COLUMNS,
    "map": MAP_COLUMNS,
    "audit": SUSPECT_COLUMNS,
}
# Columns that say which photo a row is of, and nothing about it.
NAMING_COLUMNS = (*PHOTO_COLUMNS, "location")


def writer_of(header: Sequence[str]) -> str | None:
    """What wrote a table with this header, such as "hugs drift"; None if no program of the project did.

    Args:
      header: the cells of the first line, or the names of the fields of a first line of JSON.
    """
    for program, columns in _OF_PROGRAMS.items():
        if tuple(header) == columns:
            return f"hugs {program}"
    names = set(header)
    if {*PHOTO_COLUMNS, "action"} <= names:
        return "corrections of labels"
    if {"set", "uri", "prediction"} <= names or {"set", "uri", "also_in"} <= names:
        return "hugs train"
    if {"image_uri", "score", "confident"} <= names:
        return "hugs predict_all"
    # The page of `hugs map` saves a choice of photos, and `hugs search --json` prints what it found.
    return "the pages and searches of hugs" if set(PHOTO_COLUMNS) <= names else None
