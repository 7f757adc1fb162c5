"""Compares new lists with those of an earlier run in the same folder: finds photos that changed the list."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping

from configs.counts import counted
from configs.list_names import SPLITS
from preprocess.storage.base import Storage


def read_earlier_lists(output_dir: str, storage: Storage) -> dict[str, str]:
    """The list of each URI in the lists that lie in a folder; what cannot be read as a list is left out."""
    lists: dict[str, str] = {}
    for split in SPLITS:
        path = os.path.join(output_dir, f"{split}.csv")
        try:
            if not storage.match(path):
                continue
            with storage.open(path) as stream:
                text = stream.read().decode()
            lists.update((row[0], split) for row in csv.reader(io.StringIO(text, newline="")) if row)
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return lists


def moved_message(earlier: Mapping[str, str], photos: Mapping[str, Iterable[tuple[float, str, str]]]) -> str | None:
    """What to say about photos that are in another list than before; None if there are none.

    Args:
      earlier: the list of each URI before.
      photos: (order, URI, label) of the photos that are in each list now.
    """
    moves: Counter[tuple[str, str]] = Counter()
    for split, rows in photos.items():
        for _, uri, _ in rows:
            before = earlier.get(uri, split)
            if before != split:
                moves[before, split] += 1
    if not moves:
        return None
    parts = ", ".join(f"{number} from {before} to {after}" for (before, after), number in sorted(moves.items()))
    seen = sum(number for (before, _), number in moves.items() if before == "train")
    message = f"{counted(moves.total(), 'photo')} of the earlier lists changed the list: {parts}."
    if seen:
        message += (
            f" A model of the earlier lists was trained on {seen} of them: it cannot be evaluated on the new lists."
        )
    return message
