"""Warns of images that several record sets of one part of a run hold, above all if their labels differ."""

from __future__ import annotations

import numpy as np

from configs.counts import counted
from preprocess.records.duplicates import find_duplicates, label_key
from trainer.data.dataset import EmbeddingDataset


def repeated_image_warnings(train: EmbeddingDataset) -> list[str]:
    """A warning if record sets that are trained on hold the same image content; sentences, at most one.

    Only files that are equal byte for byte are found; records whose digest is not known are left out.

    Args:
      train: the training set, as `read_dataset` gives it.
    """
    if len(train.set_starts) < 2 or train.image_digests is None:
        return []
    known = np.flatnonzero(train.image_digests.any(axis=1))
    found = find_duplicates(train.image_digests[known], _label_keys(train)[known])
    if not found.num_groups:
        return []
    members = known[found.members]
    sets = np.searchsorted([start for _, start in train.set_starts], members, side="right") - 1
    low, high = (ufunc.reduceat(sets, found.splits[:-1]) for ufunc in (np.minimum, np.maximum))
    shared = np.flatnonzero(low < high)
    if not len(shared):
        return []
    contradict = shared[found.labels_differ[shared]]
    # The two sets with the most of these images, and their first one.
    told = contradict if len(contradict) else shared
    pairs = low[told] * len(train.set_starts) + high[told]
    values, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    group = told[first[counts.argmax()]]
    rows = members[found.splits[group] : found.splits[group + 1]]
    of_group = sets[found.splits[group] : found.splits[group + 1]]
    one, other = rows[of_group == low[group]][0], rows[of_group == high[group]]
    differing = [row for row in other if set(train.labels_of(row)) != set(train.labels_of(one))]
    other = differing[0] if differing else other[0]
    names = [train.set_starts[number][0] for number in (low[group], high[group])]
    several = "" if len(values) == 1 else " (or in others of these sets)"
    number = len(shared)
    where = f"{counted(number, 'image')} {'is' if number == 1 else 'are'} in both {names[0]} and {names[1]}{several}"
    if not len(contradict):
        return [f"{where}, so training sees {'it' if number == 1 else 'them'} twice, such as {train.uris[one]}"]
    said = [", ".join(train.labels_of(row)) for row in (one, other)]
    example = f"such as {train.uris[one]} ({said[0]} and {said[1]})"
    return [
        f"{where}, {len(contradict)} of them with different labels, {example}: training learns both labels. If one set "
        "corrects the other, name only that one in --train_data_paths, without a star"
    ]


def _label_keys(train: EmbeddingDataset) -> np.ndarray:
    """uint64 [n]: equal for the same set of labels. That of one label is its id."""
    keys = train.first_label_ids.astype(np.uint64)
    for row in np.flatnonzero(np.diff(train.label_splits) > 1).tolist():
        ids = frozenset(train.label_ids[train.label_splits[row] : train.label_splits[row + 1]].tolist())
        if len(ids) > 1:
            keys[row] = label_key(ids)
    return keys
