"""Finds pairs of images whose perceptual hashes differ in few bits, as they are or with one of the two mirrored.

Hashes are compared only if they agree, but for at most one bit, in at least one of 13 bands of 19 or 20 bits. This is
multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012). So
of n hashes not all n² / 2 pairs are compared. Pairs of up to 25 differing bits are all found. Beyond it takes luck: of
pairs whose 36 bits lie at random places 97 % are found, with 48 bits 75 %.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from configs.activity import doing
from preprocess.images.perceptual_hash import HASH_BYTES, mirrored

_BITS = 8 * HASH_BYTES
_BANDS = 13
# No pair with more bits is taken, because further ones would not all be found.
MOST_BITS = 48
_LOW = 0.05
# Pairs that are compared at once: 64 bytes and some numbers each.
_AT_ONCE = 1 << 20
# More images than this in one cell of a band are there because they have something in common that says nothing, such
# as a white border.
_LARGEST_CELL = 400
# Up to so many images all pairs are compared, which takes a second.
_FEW = 4096


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HashPairs:
    """Pairs of images. Each pair is in it once.

    Attributes:
      first, second: int64 [m]: rows, `first` < `second`; sorted.
      bits: int64 [m]: in how many bits the two hashes differ: the smaller number of the two ways to compare.
      is_mirrored: bool [m]: they are nearer if one of the images is mirrored.
    """

    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray
    is_mirrored: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def hash_distances(hashes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In how many bits the hashes of pairs of images differ.

    Args:
      hashes: uint8 [m, 32].
      others: uint8 [m, 32].

    Returns:
      int64 [m], the smaller number of the two ways to compare; and bool [m], whether it is that with one mirrored.
    """
    plain = _differing(_words(hashes), _words(others))
    turned = _differing(_words(mirrored(hashes)), _words(others))
    return np.minimum(plain, turned), turned < plain


def chance_threshold(hashes: np.ndarray, classes: np.ndarray, *, false_pairs: float, seed: int = 0) -> int:
    """The largest number of differing bits that two unlike images hardly ever have.

    The null model is this set's own: the distances of pairs drawn at random from different classes, or from all images
    where there are no classes. Their lower half is taken as that of a normal distribution, which is fitted to the
    median and the 5 % quantile: these stay what they are even if 1 % of all pairs are copies of each other.

    Args:
      hashes: uint8 [n, 32], of the images that have one.
      classes: int64 [n]: of each image; -1 if it is not known.
      false_pairs: how many pairs of unlike images may be expected below the threshold, among all pairs.
      seed: of the draw.

    Returns:
      From -1 (no two hashes say anything) to `MOST_BITS`.
    """
    count = len(hashes)
    if count < 2:
        return MOST_BITS
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, count, (2, 200_000))
    unlike = drawn[0] != drawn[1]
    apart = unlike & (classes[drawn[0]] != classes[drawn[1]]) & (classes[drawn] >= 0).all(axis=0)
    first, second = drawn[:, apart if np.count_nonzero(apart) >= 1000 else unlike]
    distances, _ = hash_distances(hashes[first], hashes[second])
    median, low = np.quantile(distances, [0.5, _LOW])
    deviation = (median - low) / -NormalDist().inv_cdf(_LOW)
    chance = min(0.5, 2 * false_pairs / (count * (count - 1)))
    return int(np.clip(median + deviation * NormalDist().inv_cdf(chance), -1, MOST_BITS))


def find_hash_pairs(hashes: np.ndarray, most_bits: int) -> HashPairs:
    """Finds the pairs of images whose hashes differ in at most so many bits, as they are or mirrored.

    Args:
      hashes: uint8 [n, 32]. The hash 0, of an image of one colour, has no pairs.
      most_bits: at most `MOST_BITS`.

    Raises:
      ValueError: `most_bits` is larger.
    """
    if most_bits > MOST_BITS:
        raise ValueError(f"most_bits must be at most {MOST_BITS}. Received: {most_bits}")
    known = np.flatnonzero(hashes.any(axis=1)).astype(np.int32)
    words = _words(hashes[known])
    turned = _words(mirrored(hashes[known]))
    found: list[np.ndarray] = [np.empty(0, np.int64)]
    for asking, asked in ((words, words), (turned, words)):
        pairs = _near_of_all if len(known) <= _FEW else _near_in_bands
        for first, second in pairs(asking, asked, most_bits):
            found.append(first.astype(np.int64) * len(known) + second)
            if len(found) > 64:
                found = [np.unique(np.concatenate(found))]
    low, high = np.divmod(np.unique(np.concatenate(found)), max(1, len(known)))
    rows, other_rows = known[low].astype(np.int64), known[high].astype(np.int64)
    bits, is_mirrored = hash_distances(hashes[rows], hashes[other_rows])
    return HashPairs(first=rows, second=other_rows, bits=bits, is_mirrored=is_mirrored)


def _words(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view(np.uint64)


def _differing(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(np.bitwise_count(words ^ others).sum(axis=1, dtype=np.int64))


def _near_of_all(asking: np.ndarray, asked: np.ndarray, most_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each two rows i < j, those of which hash i of `asking` is near hash j of `asked`: uint64 [n, 4] both."""
    for row in range(len(asking) - 1):
        near = np.flatnonzero(_differing(asking[row], asked[row + 1 :]) <= most_bits)
        if len(near):
            yield np.full(len(near), row), near + row + 1


def _near_in_bands(asking: np.ndarray, asked: np.ndarray, most_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same, but only of hashes that agree in a band but for at most one bit."""
    is_same = asking is asked
    with doing("comparing the hashes of photos", total=_BANDS, unit="band") as progress:
        for band in range(_BANDS):
            width = len(range(band, _BITS, _BANDS))
            # In the order of their cells, so that what is compared lies side by side in memory.
            cells = _Cells(asked, band)
            probes = cells if is_same else _Cells(asking, band)
            for flipped in (0, *(1 << bit for bit in range(width))):
                yield from _near_in_cells(probes, cells, flipped, most_bits)
            progress.advance(1)


class _Cells:
    """The hashes in the order of their values in a band.

    Attributes:
      rows: int32 [n]: of the hashes.
      values: int32 [n]: ascending.
      halves: uint64 [n, 2], twice: the two halves of each hash.
      starts: int32 [2 ** width + 1]: hashes `starts[value]` to `starts[value + 1]` have this value.
    """

    def __init__(self, words: np.ndarray, band: int):
        bits = range(band, _BITS, _BANDS)
        content = words.view(np.uint8)
        values = np.zeros(len(words), np.int32)
        for bit in bits:  # Neighbouring bits are in different bands.
            values = values << 1 | (content[:, bit // 8] >> (7 - bit % 8) & 1)
        self.rows = np.argsort(values, kind="stable").astype(np.int32)
        self.values = values[self.rows]
        self.halves = np.ascontiguousarray(words[self.rows, :2]), np.ascontiguousarray(words[self.rows, 2:])
        counts = np.bincount(self.values, minlength=1 << len(bits))
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _near_in_cells(
    probes: _Cells, cells: _Cells, flipped: int, most_bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of the rows i < j where j is in the cell of i, with one bit flipped, those that are near."""
    wanted = probes.values ^ flipped
    first = cells.starts[wanted]
    sizes = cells.starts[wanted + 1] - first
    asking = np.flatnonzero((sizes > 0) & (sizes <= _LARGEST_CELL)).astype(np.int32)
    first, sizes = first[asking], sizes[asking]
    ends = np.cumsum(sizes, dtype=np.int64)
    begin = 0
    while begin < len(asking):
        before = ends[begin - 1] if begin else 0
        # At least one, and then as many as fit.
        end = max(begin + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        some = slice(begin, end)
        places = np.arange(int(ends[end - 1] - before)) + np.repeat(
            first[some] - (ends[some] - sizes[some] - before), sizes[some]
        )
        own = np.repeat(asking[some], sizes[some])
        once = np.flatnonzero(probes.rows[own] < cells.rows[places])
        own, places = own[once], places[once]
        # Half of the bits are enough to refuse nearly all.
        bits = np.bitwise_count(probes.halves[0][own] ^ cells.halves[0][places]).sum(axis=1, dtype=np.uint16)
        near = np.flatnonzero(bits <= most_bits)
        own, places, bits = own[near], places[near], bits[near]
        bits += np.bitwise_count(probes.halves[1][own] ^ cells.halves[1][places]).sum(axis=1, dtype=np.uint16)
        near = bits <= most_bits
        if near.any():
            yield probes.rows[own[near]], cells.rows[places[near]]
        begin = end
