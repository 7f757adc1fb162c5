"""Folds for cross-validation: photos of one group are in one fold, and the records of each class in all folds."""

from __future__ import annotations

import numpy as np

# The fold of records that no fold can test: their class has no other group, so no head would know it.
NOT_TESTED = -1


def grouped_folds(label_ids: np.ndarray, groups: np.ndarray, num_folds: int, *, seed: int) -> np.ndarray:
    """Deals the groups of each class to the folds, the largest groups first and groups of one size at random.

    A group counts for the most frequent label of its records. So a class has nearly as many records in each fold.

    Args:
      label_ids: int64, shape [n]: the label of each record.
      groups: int64, shape [n]: the number of the group of each record, from 0.
      num_folds: 2 or more.
      seed: the same seed gives the same folds.

    Returns:
      int64, shape [n]: the fold of each record, from 0; `NOT_TESTED` for records of a class with one group.
    """
    _, groups = np.unique(groups, return_inverse=True)
    num_groups, classes = int(groups.max()) + 1, int(label_ids.max()) + 1
    pairs, counts = np.unique(groups * classes + label_ids, return_counts=True)
    # Of each group the pair with the most records; of as many, the one with the smaller label.
    order = np.lexsort((pairs, -counts, pairs // classes))
    first = order[np.unique(pairs[order] // classes, return_index=True)[1]]
    class_of_group, sizes = pairs[first] % classes, np.bincount(groups, minlength=num_groups)
    fold_of_group = np.full(num_groups, NOT_TESTED, np.int64)
    random = np.random.default_rng(seed)
    tie = random.permutation(num_groups)
    by_class = np.lexsort((tie, -sizes, class_of_group))
    starts = np.flatnonzero(np.diff(class_of_group[by_class], prepend=-1))
    dealt = 0
    for members in np.split(by_class, starts[1:]):
        if len(members) > 1:
            # A class begins at the fold after the last one of the class before, so that the folds have equal sizes.
            fold_of_group[members] = (dealt + np.arange(len(members))) % num_folds
            dealt += len(members)
    return fold_of_group[groups]
