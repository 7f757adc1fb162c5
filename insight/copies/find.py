"""Finds the photos of some record sets that are copies of each other, and puts them in groups.

There are three sources of pairs: equal files, perceptual hashes, and embeddings. Hashes find copies that were
re-encoded, resized, brightened or mirrored. Embeddings find the rest: crops, shots of one burst, and copies in sets
without hashes. Of photos that are known as copies only one is compared by its embedding, so copies do not pass for
neighbours of each other.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from configs.activity import doing
from insight.copies.groups import join_guarded
from insight.copies.hash_pairs import chance_threshold, find_hash_pairs, hash_distances
from insight.copies.similar_pairs import FALSE_SHARE, centred, find_similar_pairs
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.joined_groups import equal_files

# So many pairs of unlike images may be expected among those that hashes find, in the whole set.
_FALSE_HASH_PAIRS = 0.01
# Copies by hash must be more alike by their embeddings than this share of all pairs.
_UNLIKE_SHARE = 0.99
_DRAWN = 20_000


class Kind(enum.Enum):
    """How a photo is known to be a copy of the first one of its group."""

    FIRST = "first"
    EQUAL = "equal"  # The files are equal byte for byte.
    COPY = "copy"  # The hashes nearly agree: re-encoded, resized, brightened.
    MIRRORED = "mirrored"  # The hashes nearly agree if one of the two is mirrored.
    SIMILAR = "similar"  # The embeddings are nearer than chance: cropped, or shots of one burst.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """A photo of a group.

    Attributes:
      row: of the photo.
      kind: how it is known.
      bits: in how many bits its hash differs from that of the first photo of the group; None if one has no hash.
      similarity: the cosine similarity of the two, after the mean of all embeddings is subtracted.
    """

    row: int
    kind: Kind
    bits: int | None
    similarity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twins:
    """The copies among some photos.

    Attributes:
      groups: each has two photos or more, and its first one first.
      most_bits: hashes of copies differ in at most so many bits; None if hashes were not compared.
      least_score: embeddings of copies have at least this score (`similar_pairs`); None if they were not compared.
      false_share: the share of photos for which chance alone is expected to give a twin by the embedding.
      num_hashed: photos that have a hash.
    """

    groups: tuple[tuple[Twin, ...], ...]
    most_bits: int | None
    least_score: float | None
    false_share: float
    num_hashed: int


def find_twins(photos: EmbeddedPhotos, *, by_embedding: bool) -> Twins:
    """Finds the copies among the photos of some sets.

    Args:
      photos: the photos.
      by_embedding: whether embeddings are compared; it takes n² products of two embeddings for n photos.
    """
    count = len(photos)
    classes = photos.first_label_ids
    vectors = centred(photos.embeddings)
    groups = equal_files(photos.image_digests)
    hashed = np.flatnonzero(photos.image_hashes.any(axis=1))
    most_bits = None
    if len(hashed):
        most_bits = chance_threshold(photos.image_hashes[hashed], classes[hashed], false_pairs=_FALSE_HASH_PAIRS)
        firsts = hashed[groups[hashed] == hashed]
        pairs = find_hash_pairs(photos.image_hashes[firsts], most_bits)
        alike = _products(vectors, firsts[pairs.first], firsts[pairs.second]) > _unlike(vectors)
        first, second, bits = firsts[pairs.first[alike]], firsts[pairs.second[alike]], pairs.bits[alike]
        groups = join_guarded(count, first, second, -bits)[groups]
    least_score = None
    if by_embedding:
        left = np.unique(groups)
        similar = find_similar_pairs(vectors[left], classes[left])
        least_score = similar.threshold if np.isfinite(similar.threshold) else None
        with doing("putting similar photos in groups"):
            joined = join_guarded(count, left[similar.first], left[similar.second], similar.scores)
        groups = joined[groups]
    return Twins(
        groups=_described(photos, vectors, groups, -1 if most_bits is None else most_bits),
        most_bits=most_bits,
        least_score=least_score,
        false_share=FALSE_SHARE,
        num_hashed=len(hashed),
    )


def _products(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), 4096):
        some = slice(start, start + 4096)
        found[some] = np.einsum("ij,ij->i", vectors[first[some]], vectors[second[some]])
    return found


def _unlike(vectors: np.ndarray) -> float:
    """A similarity that few pairs drawn at random exceed."""
    drawn = np.random.default_rng(0).integers(0, len(vectors), (2, _DRAWN))
    drawn = drawn[:, drawn[0] != drawn[1]]
    # Of a handful of photos half may be copies of each other.
    return min(float(np.quantile(_products(vectors, drawn[0], drawn[1]), _UNLIKE_SHARE)), 0.5) if drawn.size else 0.5


def _described(
    photos: EmbeddedPhotos, vectors: np.ndarray, groups: np.ndarray, most_bits: int
) -> tuple[tuple[Twin, ...], ...]:
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    found = []
    for rows in np.split(order, starts[1:]):
        if len(rows) < 2:
            continue
        first = np.full(len(rows), rows[0])
        bits, is_mirrored = hash_distances(photos.image_hashes[first], photos.image_hashes[rows])
        have_hashes = photos.image_hashes[rows].any(axis=1) & photos.image_hashes[first].any(axis=1)
        equal = (photos.image_digests[rows] == photos.image_digests[first]).all(axis=1)
        equal &= photos.image_digests[rows].any(axis=1)
        similarities = _products(vectors, first, rows)
        twins = []
        for place, row in enumerate(rows.tolist()):
            if place == 0:
                kind = Kind.FIRST
            elif equal[place]:
                kind = Kind.EQUAL
            elif have_hashes[place] and bits[place] <= most_bits:
                kind = Kind.MIRRORED if is_mirrored[place] else Kind.COPY
            else:
                kind = Kind.SIMILAR
            twins.append(
                Twin(
                    row=row,
                    kind=kind,
                    bits=int(bits[place]) if have_hashes[place] else None,
                    similarity=float(similarities[place]),
                )
            )
        found.append(tuple(twins))
    return tuple(found)
