"""False alarms and power of `hugs drift`, on photos of flowers through a network with real weights, and on styles.

Usage: python -m benchmarks.drift [--splits N] [--all] [--photos DIR] [--quick]

Each split draws the training photos and 200 new ones at random. The new ones are left as they are (each alarm is a
false one), made darker, blurred, or their red and blue are exchanged; or a class is left out of the training photos,
and a tenth, a fifth or three tenths of the new photos are of it, each class in turn. Where there is an alarm, the
named cause is looked at, too. "Styles" are embeddings of eight classes that are hard to tell apart (`STYLES`), where
they are there: without photos, so only the embeddings are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.real_embeddings import BACKBONE, STYLES, class_numbers, pixels_and_engine
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.option import options_of
from configs.program import run_program
from insight.drift import DriftOptions
from insight.drifting.comparison import Comparison, compare
from insight.drifting.new_photos import MAX_STATISTICS, NewPhotos
from preprocess.engines.fidelity import embed_all
from preprocess.records.backbone_identity import BackboneIdentity
from trainer.data.photo_statistics import PHOTO_STATISTICS, photo_statistics
from trainer.data.photos import PhotoFinder
from trainer.data.training_sketch import TrainingSketch
from trainer.export.model_info import ModelInfo

_LEVEL = options_of(DriftOptions)["alarm_level"].default
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


@dataclasses.dataclass(frozen=True, eq=False)
class Photos:
    """Photos as they are compared.

    Attributes:
      embeddings: float32 [n, size].
      statistics: float32 [n, 6]; [0, 6] if only the embeddings are known.
      label_ids: int64 [n].
    """

    embeddings: np.ndarray
    statistics: np.ndarray
    label_ids: np.ndarray


def compared(before: Photos, training: np.ndarray, now: Photos, new: np.ndarray) -> Comparison:
    """What `hugs drift` says of some training photos and some new ones, given by their rows."""
    size = before.embeddings.shape[1]
    of_photos = len(before.statistics) > 0
    sketch = TrainingSketch.of_vectors(
        before.embeddings[training],
        before.label_ids[training],
        before.statistics[training[:_STATISTICS]] if of_photos else before.statistics,
        embedding_size=size,
        num_photos=len(training),
    )
    statistics = now.statistics[new[:MAX_STATISTICS]] if of_photos else now.statistics
    uris = [str(row) for row in new.tolist()]
    photos = NewPhotos(
        total=len(new),
        uris=uris,
        places=uris,
        finders=[PhotoFinder()] * len(new),
        digests=[None] * len(new),
        embeddings=now.embeddings[new],
        read_places=np.arange(len(statistics)),
        statistics=statistics,
    )
    info = ModelInfo(
        labels=tuple(f"class {number}" for number in range(int(before.label_ids.max()) + 1)),
        backbone=BackboneIdentity(
            architecture="x", weights="x", seed=None, weights_digest="x", embedding_size=size, image_definition="x"
        ),
        head_digest="x",
    )
    return compare(sketch, photos, info=info, alarm_level=_LEVEL)


def _figure(figure: str, ours: float, target: float | None, *, unit: str, at_most: bool = False) -> Figure:
    if target is None:
        return Figure(figure=figure, ours=f"{ours:.4g} {unit}")
    return limit(figure, ours, target, unit=unit, at_most=at_most)


def _power(name: str, found: Sequence[Comparison], *, cause: str, target: float | None) -> list[Figure]:
    """The share of alarms, and which share of them names the cause."""
    alarms = [one for one in found if one.drift]
    named = np.mean([one.cause == cause for one in alarms]) if alarms else 0.0
    rows = [_figure(f"power, {name}, {len(found)} splits", 100 * len(alarms) / len(found), target, unit="%")]
    rows.append(_figure(f"alarms with the right cause, {name}", 100 * float(named), None, unit="%"))
    for row in rows:
        say(row.line())
    return rows


def measure(
    name: str, as_they_are: Photos, changed: dict[str, Photos], *, num_splits: int, targets: bool
) -> list[Figure]:
    """All figures of a set.

    Args:
      name: of the set.
      as_they_are: its photos.
      changed: the same photos, each changed.
      num_splits: for the false alarms; the other figures take fewer.
      targets: whether the power for a class of a tenth has a target.
    """
    labels = as_they_are.label_ids
    count = len(labels)
    few = min(_FEW_SPLITS, num_splits)
    num_new = min(_NUM_NEW, count // 2)

    def split(seed: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(seed).permutation(count)
        return order[num_new:], order[:num_new]

    began = time.process_time()
    values = []
    for seed in range(num_splits):
        training, new = split(seed)
        values.append(compared(as_they_are, training, as_they_are, new).p_value)
    core_sec = (time.process_time() - began) / num_splits
    of = f"{name}, {count - num_new} training photos, {num_new} new ones"
    rows = [
        _figure(
            f"false alarms of {num_splits} splits at the level {level:g}, {of}",
            100 * float(np.mean(np.array(values) <= level)),
            5 + 1e-9 if level == _LEVEL else None,
            unit="%",
            at_most=True,
        )
        for level in (_LEVEL, 0.05, 0.1)
    ]
    rows.append(_figure(f"core-seconds of a comparison, {of}", core_sec, None, unit="s"))
    for row in rows:
        say(row.line())
    for change, photos in changed.items():
        found = [compared(as_they_are, split(seed)[0], photos, split(seed)[1]) for seed in range(few)]
        rows += _power(f"{name}, {change}", found, cause="photos", target=90)
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
            found.append(compared(as_they_are, known[num_new - num_unseen :], as_they_are, new))
        words = f"{name}, an unseen class of {share:.0%} of {num_new} new photos"
        rows += _power(words, found, cause="new_class", target=90 if targets else None)
    return rows


def _styles() -> Photos:
    with np.load(STYLES) as arrays:
        embeddings, labels = arrays["embedding"], arrays["label"]
    return Photos(embeddings, np.zeros((0, len(PHOTO_STATISTICS)), np.float32), labels)


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
    labels = class_numbers(photo_set, count=count)

    def seen(these: np.ndarray) -> Photos:
        return Photos(embed_all(engine, these), np.stack([photo_statistics(one) for one in these]), labels)

    changed = {name: seen(change(pixels)) for name, change in _CHANGES.items()}
    rows = measure(photo_set.name, seen(pixels), changed, num_splits=num_splits, targets=True)
    if STYLES.exists() and not args.quick:
        rows += measure("styles", _styles(), {}, num_splits=num_splits, targets=False)
    finish("drift", rows, photos=photo_set.name, backbone=BACKBONE)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
