"""How many planted copies `hugs twins` finds among real photos, how many pairs are wrong, and a million hashes.

Usage: python -m benchmarks.twins [--photos FOLDER] [--seeds N] [--copies N] [--hashes N] [--all] [--quick]

For each seed, copies of each kind are made of photos drawn at random, and put among all photos. Network:
EfficientNet-Lite0 with its ImageNet weights (the extra `weights`). The peer is the 64-bit pHash of the package
`imagehash` with a limit of 10 bits, on the same copies, where that package is installed.

A pair is right if both photos were made of one photo. Photos may hold shots of one scene from the start. What is found
among them before anything is planted is counted by itself, and such pairs are neither right nor wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import engines
from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK, InputError
from configs.program import run_program
from insight.copies.find import find_twins
from insight.copies.hash_pairs import chance_threshold, find_hash_pairs
from insight.data.embedded_photos import EmbeddedPhotos
from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines.fidelity import embed_all
from preprocess.images.decode import decode_image
from preprocess.images.perceptual_hash import perceptual_hashes

_BACKBONE = BackboneSpec(architecture="efficientnet_lite0", weights="imagenet")
_SIZE = 224
_ENGINES = ("openvino/float32", "tensorflow/float32")
# The limit that the documentation of similar tools names for 64 bits.
_PEER_BITS = 10
_RECALL, _RECALL_OF_CROPS, _PRECISION = 0.98, 0.9, 0.99
_MAX_SEC, _MAX_BYTES = 300, 2e9
_SEEDS, _ALL_SEEDS = 2, 5

Generator = np.random.Generator


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _cropped(image: Image.Image, rng: Generator) -> bytes:
    share = 1 - rng.uniform(0.05, 0.2)
    width, height = int(image.width * share), int(image.height * share)
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return _as_jpeg(image.crop((int(left), int(top), int(left) + width, int(top) + height)), 90)


def _resized(image: Image.Image, rng: Generator) -> bytes:
    share = rng.uniform(0.4, 0.8)
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return _as_jpeg(image.resize(size, Image.Resampling.LANCZOS), 90)


KINDS: dict[str, Callable[[Image.Image, Generator], bytes]] = {
    "re-encoded": lambda image, rng: _as_jpeg(image, int(rng.integers(30, 80))),
    "resized": _resized,
    "brightened": lambda image, rng: _as_jpeg(ImageEnhance.Brightness(image).enhance(rng.choice([0.7, 1.3])), 90),
    "mirrored": lambda image, rng: _as_jpeg(ImageOps.mirror(image), 90),
    "cropped": _cropped,
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Some:
    """Photos with what their records would hold, and the number of the photo that each was made of."""

    embeddings: np.ndarray
    hashes: np.ndarray
    labels: np.ndarray
    bases: np.ndarray
    peer_hashes: np.ndarray | None

    def __add__(self, other: _Some) -> _Some:
        peer = None
        if self.peer_hashes is not None and other.peer_hashes is not None:
            peer = np.concatenate([self.peer_hashes, other.peer_hashes])
        return _Some(
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.hashes, other.hashes]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.bases, other.bases]),
            peer,
        )

    def photos(self) -> EmbeddedPhotos:
        """They as records of one set, of which no two files are equal."""
        count = len(self.labels)
        digests = np.arange(1, 2 * count + 1, dtype=np.uint64).reshape(count, 2).view(np.uint8)
        return EmbeddedPhotos(
            uris=np.array([str(row) for row in range(count)], object),
            embeddings=self.embeddings,
            label_ids=self.labels,
            label_splits=np.arange(count + 1),
            labels=tuple(map(str, range(int(self.labels.max()) + 1))),
            image_digests=digests,
            image_hashes=self.hashes,
            set_numbers=np.zeros(count, np.int32),
            sets=(),
        )


def _embedded(files: Sequence[bytes], labels: np.ndarray, bases: np.ndarray, engine: Any, peer: Any) -> _Some:
    pixels = np.stack([decode_image(data, size=_SIZE) for data in files])
    hashes = None
    if peer is not None:
        hashes = np.stack([peer.phash(Image.open(io.BytesIO(data))).hash.ravel() for data in files])
    return _Some(embed_all(engine, pixels), perceptual_hashes(pixels), labels, bases, hashes)


def _pairs_of_groups(photos: _Some) -> set[tuple[int, int]]:
    found = set()
    for group in find_twins(photos.photos(), by_embedding=True).groups:
        rows = sorted(twin.row for twin in group)
        found |= {(one, other) for place, one in enumerate(rows) for other in rows[place + 1 :]}
    return found


def _pairs_of_peer(photos: _Some) -> set[tuple[int, int]]:
    assert photos.peer_hashes is not None
    bits = photos.peer_hashes.astype(np.int16)
    differing = bits @ (1 - bits.T) + (1 - bits) @ bits.T
    first, second = np.nonzero(np.triu(differing <= _PEER_BITS, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


def _judged(
    pairs: set[tuple[int, int]], bases: np.ndarray, kinds: Sequence[str], natural: set[tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """For each kind, how many copies are paired with their photo, of how many; for "pairs", how many are right."""
    counts: dict[str, tuple[int, int]] = {}
    start = len(bases) - len(kinds)
    for place, kind in enumerate(kinds):
        right, total = counts.get(kind, (0, 0))
        counts[kind] = right + ((int(bases[start + place]), start + place) in pairs), total + 1
    right = wrong = 0
    for one, other in pairs:
        base, other_base = sorted((int(bases[one]), int(bases[other])))
        if base == other_base:
            right += 1
        elif (base, other_base) not in natural:
            wrong += 1
    counts["pairs"] = right, right + wrong
    return counts


def _figures(name: str, counts: dict[str, list[tuple[int, int]]], *, with_targets: bool) -> list[Figure]:
    rows = []
    for what, of_seeds in counts.items():
        right, total = np.array(of_seeds).T
        share = right.sum() / max(1, total.sum())
        lowest = (right / np.maximum(1, total)).min()
        words = f"{name}: {'precision of pairs' if what == 'pairs' else f'recall, {what}'}"
        target = {"pairs": _PRECISION, "cropped": _RECALL_OF_CROPS}.get(what, _RECALL)
        figure = limit(words, float(share), target, unit="")
        if not with_targets:
            figure = Figure(figure=words, ours=figure.ours)
        rows.append(dataclasses.replace(figure, ours=f"{share:.4f} ({right.sum()}/{total.sum()}; lowest {lowest:.3f})"))
    return rows


def million_hashes(count: int) -> list[Figure]:
    """Time and memory for simulated hashes, of which one in ten is a copy with up to 40 differing bits."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, 32), np.uint8)
    rows = rng.permutation(count)[: count // 10]
    originals, copies = rows[: len(rows) // 2], rows[len(rows) // 2 : len(rows) // 2 * 2]
    differing = rng.integers(0, 41, len(originals))
    for start in range(0, len(originals), 10_000):
        some = slice(start, start + 10_000)
        bits = np.unpackbits(hashes[originals[some]], axis=1)
        ranks = rng.random(bits.shape).argsort(axis=1)
        bits ^= ranks < differing[some, np.newaxis]
        hashes[copies[some]] = np.packbits(bits, axis=1)
    started, cpu_started = time.perf_counter(), time.process_time()
    most_bits = chance_threshold(hashes, np.full(count, -1), false_pairs=0.01)
    pairs = find_hash_pairs(hashes, most_bits)
    wall_sec, cpu_sec = time.perf_counter() - started, time.process_time() - cpu_started
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    wanted = list(zip(np.minimum(originals, copies).tolist(), np.maximum(originals, copies).tolist(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    false = len(found - set(wanted))
    say(f"{count:,} hashes: {len(pairs):,} pairs, {false} of them not planted; {wall_sec:.1f} s of wall")
    return [
        limit(f"{count:,} hashes: time of one core", cpu_sec, _MAX_SEC, unit="s", at_most=True),
        limit(f"{count:,} hashes: peak memory of the process", peak, _MAX_BYTES, unit="bytes", at_most=True),
        limit(
            f"{count:,} hashes: recall, up to 40 bits at random places",
            sum(pair in found for pair in wanted) / max(1, len(wanted)),
            _RECALL,
            unit="",
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twins", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"default: {_SEEDS}")
    parser.add_argument("--all", action="store_true", help=f"{_ALL_SEEDS} seeds, as the figures of the pages have")
    parser.add_argument("--copies", type=int, default=60, help="of each kind (default: 60)")
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a seed, five copies of each kind, 20,000 hashes")
    args = parser.parse_args(argv)
    if args.all:
        args.seeds = _ALL_SEEDS
    if args.quick:
        args.seeds, args.copies, args.hashes = 1, 5, min(args.hashes, 20_000)
    figures = million_hashes(args.hashes)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    paths = [path for path, _ in photo_set.photos]
    labels = np.array([photo_set.classes.index(label) for _, label in photo_set.photos])
    engine = next((found for choice in _ENGINES if (found := engines.load(choice, paths, _BACKBONE))), None)
    if engine is None:
        raise InputError("No engine runs EfficientNet-Lite0 in float32 here.")
    try:
        import imagehash as peer  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        peer = None
        say("imagehash is not installed: no peer")
    contents = []
    for path in paths:
        with open(path, "rb") as stream:
            contents.append(stream.read())
    originals = _embedded(contents, labels, np.arange(len(paths)), engine, peer)
    natural = _pairs_of_groups(originals)
    say(f"{len(natural)} pairs among {len(paths)} photos before anything is planted:")
    for one, other in sorted(natural):
        say(f"  {paths[one]} {paths[other]}")
    ours: dict[str, list[tuple[int, int]]] = defaultdict(list)
    peers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        files, bases, kinds = [], [], []
        for kind, make in KINDS.items():
            for row in rng.permutation(len(paths))[: args.copies].tolist():
                files.append(make(Image.open(io.BytesIO(contents[row])).convert("RGB"), rng))
                bases.append(row)
                kinds.append(kind)
        made_of = np.array(bases)
        both = originals + _embedded(files, labels[made_of], made_of, engine, peer)
        for what, count in _judged(_pairs_of_groups(both), both.bases, kinds, natural).items():
            ours[what].append(count)
        if peer is not None:
            for what, count in _judged(_pairs_of_peer(both), both.bases, kinds, natural).items():
                peers[what].append(count)
        say(f"seed {seed}: " + ", ".join(f"{what} {counts[-1]}" for what, counts in ours.items()))
    figures += _figures("hugs twins", ours, with_targets=True)
    figures += _figures(f"imagehash, {_PEER_BITS} bits", peers, with_targets=False)
    finish("twins", figures, photos=photo_set.name, seeds=args.seeds, natural_pairs=len(natural), argv=sys.argv[1:])
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
