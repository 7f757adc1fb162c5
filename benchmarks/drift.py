"""False alarms and power of `hugs drift`, on photos of flowers through a network with real weights.

Usage: python -m benchmarks.drift [--splits N] [--all] [--photos DIR] [--quick]

Each split draws the training photos and 200 new ones at random. The new ones are left as they are (each alarm is a
false one), made darker, blurred, or their red and blue are exchanged; or a class is left out of the training photos,
and a tenth, a fifth or three tenths of the new photos are of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.real_embeddings import BACKBONE, class_numbers, pixels_and_engine
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program
from insight.drifting.comparison import combined_p_value
from insight.drifting.two_samples import compare_embeddings, compare_numbers
from preprocess.engines.fidelity import embed_all
from trainer.data.photo_statistics import photo_statistics

_LEVEL = 0.03
_NUM_NEW = 200
_FEW_SPLITS = 40
_SPLITS, _ALL_SPLITS = 50, 200
_STATISTICS = 200


def _darker(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 0.7).astype(np.uint8)


def _blurred(pixels: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(1.5))) for one in pixels])


def _swapped(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., ::-1])


_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "darker by 30 %": _darker,
    "blurred (1.5 of 224 pixels)": _blurred,
    "red and blue exchanged": _swapped,
}
_UNSEEN_SHARES = (0.1, 0.2, 0.3)


class _Photos:
    """Photos as the tests take them: embeddings float32 [n, size], statistics float32 [n, 6]."""

    def __init__(self, embeddings: np.ndarray, statistics: np.ndarray):
        self.embeddings = embeddings
        self.statistics = statistics


def p_value(before: _Photos, training: np.ndarray, now: _Photos, new: np.ndarray) -> float:
    """The p-value of `hugs drift` for some training photos and some new ones, given by their rows."""
    tests = compare_embeddings(before.embeddings[training], now.embeddings[new])
    numbers, _ = compare_numbers(before.statistics[training[:_STATISTICS]], now.statistics[new])
    return combined_p_value(tests.p_value, numbers)


def alarms(values: Sequence[float]) -> float:
    """The share of alarms."""
    return float(np.mean(np.array(values) <= _LEVEL))


def measure(as_they_are: _Photos, changed: dict[str, _Photos], labels: np.ndarray, *, num_splits: int) -> list[Figure]:
    """All figures."""
    count = len(labels)
    few = min(_FEW_SPLITS, num_splits)
    num_new = min(_NUM_NEW, count // 2)

    def split(seed: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(seed).permutation(count)
        return order[num_new:], order[:num_new]

    rows = []
    values = []
    for seed in range(num_splits):
        training, new = split(seed)
        values.append(p_value(as_they_are, training, as_they_are, new))
    of = f"{count - num_new} training photos, {num_new} new ones"
    rows.append(
        limit(f"false alarms of {num_splits} splits, {of}", 100 * alarms(values), 5 + 1e-9, unit="%", at_most=True)
    )
    say(rows[-1].line())
    for name, photos in changed.items():
        found = [p_value(as_they_are, *split(seed)[:1], photos, split(seed)[1]) for seed in range(few)]
        rows.append(limit(f"power, {name}, {few} splits", 100 * alarms(found), 90, unit="%"))
        say(rows[-1].line())
    classes = np.unique(labels)
    for share in _UNSEEN_SHARES:
        found = []
        num_unseen = round(share * num_new)
        for seed in range(few):
            random = np.random.default_rng(seed)
            unseen = classes[seed % len(classes)]
            known = random.permutation(np.flatnonzero(labels != unseen))
            others = random.permutation(np.flatnonzero(labels == unseen))[:num_unseen]
            new = np.concatenate([known[: num_new - num_unseen], others])
            found.append(p_value(as_they_are, known[num_new - num_unseen :], as_they_are, new))
        rows.append(
            limit(
                f"power, an unseen class of {share:.0%} of {num_new} new photos, {few} splits",
                100 * alarms(found),
                90,
                unit="%",
            )
        )
        say(rows[-1].line())
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--splits", type=int, default=_SPLITS, help=f"splits for the false alarms (default: {_SPLITS})")
    parser.add_argument("--all", action="store_true", help=f"{_ALL_SPLITS} splits, as the figures of the pages have")
    parser.add_argument("--quick", action="store_true", help="150 photos, 4 splits: does everything run?")
    args = parser.parse_args(argv)
    photo_set = find_photos(args.photos)
    count = 150 if args.quick else None
    num_splits = 4 if args.quick else _ALL_SPLITS if args.all else args.splits
    say(photo_set.describe())
    pixels, engine = pixels_and_engine(photo_set, count=count)

    def seen(these: np.ndarray) -> _Photos:
        return _Photos(embed_all(engine, these), np.stack([photo_statistics(one) for one in these]))

    labels = class_numbers(photo_set, count=count)
    changed = {name: seen(change(pixels)) for name, change in _CHANGES.items()}
    rows = measure(seen(pixels), changed, labels, num_splits=num_splits)
    finish("drift", rows, photos=photo_set.name, backbone=BACKBONE)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
