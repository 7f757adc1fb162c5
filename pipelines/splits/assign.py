"""Assigns photos to lists: by the hash of what identifies a photo, or so that each class gives its share."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def name_share(name: str) -> float:
    """A hash of a name in [0, 1): uniformly distributed, and the same on every machine.

    The formula: the first 8 bytes, big-endian, of the SHA-256 of the name (in Unicode NFC, as UTF-8), shifted right by
    11 bits, divided by 2**53. NFC because macOS stores "é" as two code points and others as one; 53 bits because a
    double holds them exactly.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(share: float, *, eval_percent: float, test_percent: float) -> str:
    """The list for a share: evaluation has the lowest shares, test the highest, training the rest.

    From both ends, so that changing one percentage moves photos between that list and training only.
    """
    if share * 100 < eval_percent:
        return "eval"
    return "test" if (1 - share) * 100 <= test_percent else "train"


def stratified(photos: Iterable[tuple[float, str]], *, eval_percent: float, test_percent: float) -> dict[float, str]:
    """The list for each share, so that each class gives its percentages to the lists as nearly as whole groups allow.

    Within a class, evaluation has the lowest shares and test the highest, as in `split_of`. So a photo that is added
    moves few others: those at a boundary. A class gives at least one group to train on, then one to evaluation, then
    one to test.

    Args:
      photos: (share of the group, label) of each photo. Photos of one group have one share, and stay together.
      eval_percent: of the photos of each class.
      test_percent: likewise.
    """
    groups: dict[float, dict[str, int]] = {}
    totals: Counter[str] = Counter()
    num_groups: Counter[str] = Counter()
    for share, label in photos:
        counts = groups.setdefault(share, {})
        num_groups[label] += label not in counts
        counts[label] = counts.get(label, 0) + 1
        totals[label] += 1
    lists = dict.fromkeys(groups, "train")
    ascending = sorted(groups)
    # A class of two groups has one to evaluate on and none to test on.
    for split, percent, order, least in (
        ("eval", eval_percent, ascending, 2),
        ("test", test_percent, ascending[::-1], 3),
    ):
        wanted = {
            label: max(1, int(total * percent / 100 + 0.5))
            for label, total in totals.items()
            if percent and num_groups[label] >= least
        }
        _take(split, wanted, order, groups, lists)
    return lists


def _take(
    split: str,
    wanted: Mapping[str, int],
    order: Sequence[float],
    groups: Mapping[float, Mapping[str, int]],
    lists: dict[float, str],
) -> None:
    """Moves groups from training to another list until each class has as many photos there as are wanted."""
    left = Counter(label for share in order if lists[share] == "train" for label in groups[share])
    missing = dict(wanted)

    def move(share: float) -> None:
        lists[share] = split
        for label, count in groups[share].items():
            left[label] -= 1
            missing[label] = missing.get(label, 0) - count

    def may_move(share: float) -> bool:
        return lists[share] == "train" and all(left[label] > 1 for label in groups[share])

    for share in order:
        needed = sum(min(count, max(missing.get(label, 0), 0)) for label, count in groups[share].items())
        if needed and 2 * needed >= sum(groups[share].values()) and may_move(share):
            move(share)
    lacking = [label for label in sorted(wanted) if missing[label] == wanted[label]]
    of_label: dict[str, list[float]] = {label: [] for label in lacking}
    for share in order:
        for label in groups[share]:
            if label in of_label:
                of_label[label].append(share)
    for label in lacking:  # Every group of such a class is much larger than what is wanted: it gives its smallest one.
        possible = [share for share in of_label[label] if may_move(share)]
        if possible and missing[label] == wanted[label]:
            move(min(possible, key=lambda share: sum(groups[share].values())))
