from __future__ import annotations

import numpy as np
import pytest

from insight.copies import hash_pairs
from insight.copies.hash_pairs import MOST_BITS, chance_threshold, find_hash_pairs, hash_distances
from preprocess.images.perceptual_hash import mirrored


def random_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def with_flipped_bits(hashes, counts, seed=1):
    """Copies of hashes in which so many bits differ."""
    rng = np.random.default_rng(seed)
    bits = np.unpackbits(hashes, axis=1)
    for row, count in enumerate(counts):
        bits[row, rng.permutation(256)[:count]] ^= 1
    return np.packbits(bits, axis=1)


@pytest.fixture
def in_bands(monkeypatch):
    monkeypatch.setattr(hash_pairs, "_FEW", 0)
    monkeypatch.setattr(hash_pairs, "_AT_ONCE", 100)


def as_set(pairs):
    assert (pairs.first < pairs.second).all()
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.parametrize("few", [0, 10_000])
def test_all_pairs_of_few_bits_are_found_once_also_mirrored_ones(few, monkeypatch):
    monkeypatch.setattr(hash_pairs, "_FEW", few)
    monkeypatch.setattr(hash_pairs, "_AT_ONCE", 100)
    hashes = random_hashes(500)
    hashes[300:326] = with_flipped_bits(hashes[:26], range(26))
    hashes[400:426] = mirrored(with_flipped_bits(hashes[100:126], range(26)))
    pairs = find_hash_pairs(hashes, 30)
    assert as_set(pairs) == {(row, row + 300) for row in range(26)} | {(row + 100, row + 400) for row in range(26)}
    of_pair = {
        pair: number for number, pair in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    }
    for row in range(26):
        plain, turned = of_pair[row, row + 300], of_pair[row + 100, row + 400]
        assert (pairs.bits[plain], pairs.is_mirrored[plain]) == (row, False)
        assert (pairs.bits[turned], pairs.is_mirrored[turned]) == (row, True)


def test_in_bands_the_same_pairs_are_found_as_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = with_flipped_bits(random_hashes(300)[rng.integers(0, 300, 900)], rng.integers(0, 13, 900))
    found = []
    for few in (10_000, 0):
        monkeypatch.setattr(hash_pairs, "_FEW", few)
        found.append(as_set(find_hash_pairs(hashes, 25)))
    assert len(found[0]) > 500 and found[0] == found[1]


def test_images_without_a_hash_have_no_pairs(in_bands):
    hashes = random_hashes(40)
    hashes[[3, 7, 20]] = 0
    hashes[9] = hashes[30]
    assert as_set(find_hash_pairs(hashes, MOST_BITS)) == {(9, 30)}
    for count in (0, 1, 3):
        assert len(find_hash_pairs(np.zeros((count, 32), np.uint8), MOST_BITS)) == 0
    with pytest.raises(ValueError, match="most_bits must be at most"):
        find_hash_pairs(hashes, MOST_BITS + 1)


def test_the_threshold_is_that_of_the_set():
    unknown = np.full(2000, -1)
    assert chance_threshold(random_hashes(2000), unknown, false_pairs=0.01) == MOST_BITS
    # Photos that all look nearly the same: 16 bits of each differ from one picture.
    alike = with_flipped_bits(np.repeat(random_hashes(1), 2000, axis=0), [16] * 2000)
    low = chance_threshold(alike, unknown, false_pairs=0.01)
    assert low < 20
    assert len(find_hash_pairs(alike[:400], low)) == 0
    # Copies of a tenth of the photos do not move it.
    some = np.concatenate([alike, with_flipped_bits(alike[:200], [1] * 200, seed=2)])
    assert abs(chance_threshold(some, np.full(2200, -1), false_pairs=0.01) - low) <= 1
    # Nor do photos of one class that are alike, if there are others.
    classes = np.repeat(np.arange(50), 40)
    clusters = with_flipped_bits(random_hashes(50)[classes], [8] * 2000)
    assert chance_threshold(clusters, classes, false_pairs=0.01) == MOST_BITS
    for count in (0, 1, 2):
        assert -1 <= chance_threshold(random_hashes(count), np.zeros(count, int), false_pairs=0.01) <= MOST_BITS


def test_equal_images_without_end_are_all_found_without_bands(in_bands):
    hashes = np.repeat(random_hashes(1), 20, axis=0)
    assert len(find_hash_pairs(hashes, 0)) == 190
    bits, is_mirrored = hash_distances(hashes[:2], mirrored(hashes[:2]))
    assert bits.tolist() == [0, 0] and is_mirrored.all()
