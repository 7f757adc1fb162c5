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
    known = np.flatnonzero(hashes.any(axis=1))
    words = _words(hashes[known])
    turned = _words(mirrored(hashes[known]))
    found: list[np.ndarray] = [np.empty(0, np.int64)]
    candidates = _all_pairs(len(known)) if len(known) <= _FEW else _candidates(words, turned)
    for first, second in candidates:
        for start in range(0, len(first), _AT_ONCE):
            some, others = first[start : start + _AT_ONCE], second[start : start + _AT_ONCE]
            near = _differing(words[some], words[others]) <= most_bits
            near |= _differing(turned[some], words[others]) <= most_bits
            low, high = np.minimum(some[near], others[near]), np.maximum(some[near], others[near])
            found.append((low * len(known) + high)[low < high])
        if len(found) > 64:
            found = [np.unique(np.concatenate(found))]
    low, high = np.divmod(np.unique(np.concatenate(found)), max(1, len(known)))
    rows, other_rows = known[low], known[high]
    bits, is_mirrored = hash_distances(hashes[rows], hashes[other_rows])
    return HashPairs(first=rows, second=other_rows, bits=bits, is_mirrored=is_mirrored)


def _words(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view(np.uint64)


def _differing(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(np.bitwise_count(words ^ others).sum(axis=1, dtype=np.int64))


def _all_pairs(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(count)
    for start in range(0, count, 256):
        block = rows[start : start + 256]
        yield np.repeat(block, count), np.tile(rows, len(block))


def _candidates(words: np.ndarray, turned: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of hashes, and of mirrored hashes and hashes, that agree in a band but for at most one bit."""
    of_bands, of_turned = _band_values(words), _band_values(turned)
    with doing("comparing the hashes of photos", total=_BANDS, unit="band") as progress:
        for band in range(_BANDS):
            width = len(range(band, _BITS, _BANDS))
            values = of_bands[band]
            order = np.argsort(values, kind="stable")
            ends = np.cumsum(np.bincount(values, minlength=1 << width))
            starts = np.concatenate([[0], ends[:-1]])
            for flipped in (0, *(1 << bit for bit in range(width))):
                for probes in (values, of_turned[band]):
                    yield from _in_cells(probes ^ flipped, order, starts, ends)
            progress.advance(1)


def _in_cells(
    cells: np.ndarray, order: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each row, the rows of the cell that it asks for."""
    first, sizes = starts[cells], (ends - starts)[cells]
    sizes = np.where(sizes > _LARGEST_CELL, 0, sizes)
    asking = np.flatnonzero(sizes)
    first, sizes = first[asking], sizes[asking]
    pieces = np.searchsorted(np.cumsum(sizes), np.arange(_AT_ONCE, int(sizes.sum()) + _AT_ONCE, _AT_ONCE), side="right")
    begin = 0
    for end in [*pieces.tolist(), len(asking)]:
        if end > begin:
            of_piece = sizes[begin:end]
            before = np.cumsum(of_piece) - of_piece
            places = np.arange(int(of_piece.sum())) - np.repeat(before - first[begin:end], of_piece)
            yield np.repeat(asking[begin:end], of_piece), order[places]
        begin = max(begin, end)


def _band_values(words: np.ndarray) -> list[np.ndarray]:
    """The bits of each band as a number: int64 [n] for each. Neighbouring bits are in different bands."""
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    found = []
    for band in range(_BANDS):
        values = np.zeros(len(words), np.int64)
        for bit in range(band, _BITS, _BANDS):
            values = values << 1 | bits[:, bit]
        found.append(values)
    return found
