"""Compares new photos with the sketch of a training set: the verdict, its numbers, and the photos behind it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.photo_files import PhotoFiles
from insight.drifting.causes import PhotoChange, channels_look_swapped, mix_changes, photo_changes
from insight.drifting.two_samples import EmbeddingTests, class_mix, compare_embeddings, compare_numbers
from preprocess.images.decode import IMAGE_SIZE
from trainer.data.photo_statistics import PHOTO_STATISTICS, statistics_of_photos
from trainer.data.training_sketch import TrainingSketch
from trainer.export.model_info import ModelInfo

_MIN_PHOTOS = 20
# More new photos than this are sampled: what so many do not show is no change that matters.
_MAX_PHOTOS = 2000
_MAX_READ = 300
_READ_SEC = 60.0
_MIN_STATISTICS = 20
_SAMPLE_SEED = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedPhoto:
    """A new photo and how much it is behind the difference.

    Attributes:
      row: of the new photos.
      unusual: how many more of its nearest photos are new ones than chance would give, as a share; with photos that
        changed in brightness and the like, how far it is beyond the training photos, in ranks.
      similarity: to the nearest training photo, at most 1.
      like: the class of the training photos that are nearest.
    """

    row: int
    unusual: float
    similarity: float
    like: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The verdict.

    Attributes:
      p_value: how often photos that are like the training set differ as much or more.
      alarm_level: below or at it there is drift.
      p_values: of each test by its name; that of `photo_statistics` only if enough photos could be read.
      cause: the likely cause, one of "photos", "new_class", "class_mix", "unknown"; None without drift.
      cause_words: a sentence about the cause; empty without drift.
      changes: how the photos changed in brightness and the like, the clearest first.
      mix: the classes whose share changed clearly.
      num_compared: new photos of which the embeddings were compared.
      num_read: new photos that were read for their brightness and the like.
      ranked: the new photos that were compared, those behind the difference first.
    """

    p_value: float
    alarm_level: float
    p_values: dict[str, float]
    cause: str | None
    cause_words: str
    changes: tuple[PhotoChange, ...]
    mix: tuple[str, ...]
    num_compared: int
    num_read: int
    ranked: tuple[RankedPhoto, ...]

    @property
    def drift(self) -> bool:
        """Whether the new photos differ from the training photos by more than chance."""
        return self.p_value <= self.alarm_level

    @property
    def verdict(self) -> str:
        """One sentence."""
        compared = counted(self.num_compared, "new photo")
        if self.drift:
            return (
                f"DRIFT: the {compared} differ from the training photos (p = {self.p_value:.3g}: chance alone does "
                f"that in {self.p_value:.1%} of cases)."
            )
        return (
            f"no drift seen: the {compared} differ from the training photos no more than chance would have it "
            f"(p = {self.p_value:.2g}). A change that concerns few of them can stay unseen."
        )

    @property
    def lines(self) -> list[str]:
        """What the program prints."""
        lines = [self.verdict]
        if self.cause_words:
            lines.append(f"cause:   {self.cause_words}")
        if "photo_statistics" not in self.p_values:
            lines.append(
                "note:    brightness, blur and colours were not compared: not enough photos could be read, now or when "
                "the model was trained."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The verdict for programs, without the photos."""
        return {
            "drift": self.drift,
            "p_value": self.p_value,
            "alarm_level": self.alarm_level,
            "p_values": self.p_values,
            "cause": self.cause,
            "cause_words": self.cause_words,
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "class_mix": list(self.mix),
            "photos_compared": self.num_compared,
            "photos_read": self.num_read,
        }


def combined_p_value(embeddings: float, photo_statistics: float | None) -> float:
    """The p-value of both questions together. Where two are asked, each has half of the false alarms (Bonferroni)."""
    return embeddings if photo_statistics is None else min(1.0, 2 * min(embeddings, photo_statistics))


def compare(
    sketch: TrainingSketch, photos: EmbeddedPhotos, files: PhotoFiles, *, info: ModelInfo, alarm_level: float
) -> Comparison:
    """Compares new photos with a training set.

    Args:
      sketch: of the training set.
      photos: the new photos, embedded by the same network.
      files: finds their files, for brightness and the like.
      info: of the model.
      alarm_level: the share of false alarms.

    Raises:
      InputError: there are too few photos to say anything.
    """
    for count, whose in ((len(photos), "--data_paths: there are"), (len(sketch.vectors), "--model_dir: the model has")):
        if count < _MIN_PHOTOS:
            raise InputError(f"{whose} {counted(count, 'photo')}; to compare, {_MIN_PHOTOS} or more are needed.")
    order = np.random.RandomState(_SAMPLE_SEED).permutation(len(photos))
    rows = np.sort(order[:_MAX_PHOTOS])
    with doing("comparing the photos with those of the training"):
        tests = compare_embeddings(sketch.vectors, sketch.project(photos.embeddings[rows]))
    read_rows, statistics = _read_statistics(sketch, photos, files, order, info)
    p_values = {"embeddings": tests.p_value, "mmd": tests.mmd, "new_group": tests.new_group}
    effects = np.zeros(len(PHOTO_STATISTICS))
    if len(statistics):
        p_values["photo_statistics"], effects = compare_numbers(sketch.statistics, statistics)
    smallest = combined_p_value(tests.p_value, p_values.get("photo_statistics"))
    changes = tuple(photo_changes(sketch.statistics, statistics, effects)) if len(statistics) else ()
    mix = _mix(sketch, tests, info)
    cause, words = None, ""
    if smallest <= alarm_level:
        cause, words = _cause(sketch, statistics, p_values, changes, mix, tests)
    return Comparison(
        p_value=smallest,
        alarm_level=alarm_level,
        p_values=p_values,
        cause=cause,
        cause_words=words,
        changes=changes,
        mix=tuple(mix),
        num_compared=len(rows),
        num_read=len(statistics),
        ranked=_ranked(sketch, tests, rows, info, read_rows, statistics, changes if cause == "photos" else ()),
    )


def _read_statistics(
    sketch: TrainingSketch, photos: EmbeddedPhotos, files: PhotoFiles, order: np.ndarray, info: ModelInfo
) -> tuple[np.ndarray, np.ndarray]:
    """The statistics of some new photos, and their rows; none if there are too few to compare."""
    rows, found = np.zeros(0, np.int64), np.zeros((0, len(PHOTO_STATISTICS)), np.float32)
    if len(sketch.statistics) >= _MIN_STATISTICS:
        wanted = order[:_MAX_READ]
        named = [(files.finder_of(row), photos.uris[row], photos.digest_of(row)) for row in wanted.tolist()]
        size = info.image.size if info.takes_images else IMAGE_SIZE
        places, statistics = statistics_of_photos(named, size=size, limit_sec=_READ_SEC)
        if len(places) >= _MIN_STATISTICS:
            rows, found = wanted[places], statistics
    return rows, found


def _mix(sketch: TrainingSketch, tests: EmbeddingTests, info: ModelInfo) -> list[str]:
    """The classes that became clearly more or less frequent."""
    num_labels = len(info.labels)
    before = np.bincount(sketch.label_ids, minlength=num_labels) / len(sketch.label_ids)
    now = class_mix(sketch.label_ids, tests.reference_neighbours, num_labels=num_labels)
    return mix_changes(
        before, now, labels=info.labels, num_before=len(sketch.label_ids), num_now=len(tests.reference_neighbours)
    )


def _cause(
    sketch: TrainingSketch,
    statistics: np.ndarray,
    p_values: dict[str, float],
    changes: tuple[PhotoChange, ...],
    mix: list[str],
    tests: EmbeddingTests,
) -> tuple[str, str]:
    """The likely cause and a sentence about it."""
    if changes and p_values["photo_statistics"] <= 0.5 * max(p_values["embeddings"], 0.02):
        if channels_look_swapped(sketch.statistics, statistics):
            return "photos", "the red and blue of the new photos look exchanged: something reads BGR as RGB."
        words = " and ".join(change.words for change in changes[:2])
        first = changes[0]
        return "photos", (
            f"the new photos are {words} than those of the training ({first.statistic}: median {first.before:.3g} "
            f"before, {first.now:.3g} now)."
        )
    if p_values["new_group"] <= p_values["mmd"] or not mix:
        group = int((tests.unusual > 0.5).sum())
        if p_values["new_group"] <= 0.05 and group >= 2:
            return "new_class", (
                f"{counted(group, 'photo')} form a group of their own that the training photos hardly have: perhaps a "
                "class that the model does not know."
            )
    if mix:
        return "class_mix", f"classes became more or less frequent: {', '.join(mix[:4])}."
    return "unknown", "not known. The photos on the page are those that are least like the training photos."


def _ranked(
    sketch: TrainingSketch,
    tests: EmbeddingTests,
    rows: np.ndarray,
    info: ModelInfo,
    read_rows: np.ndarray,
    statistics: np.ndarray,
    changes: tuple[PhotoChange, ...],
) -> tuple[RankedPhoto, ...]:
    """All photos that were compared, the most unusual first; of equal ones that least like a training photo."""
    unusual = tests.unusual.copy()
    if changes:
        # How far each photo that was read is on the side to which the photos moved.
        column = PHOTO_STATISTICS.index(changes[0].statistic)
        ordered = np.sort(sketch.statistics[:, column])
        beyond = np.searchsorted(ordered, statistics[:, column], side="left") / len(ordered) - 0.5
        unusual = np.full(len(rows), -1.0)
        places = np.searchsorted(rows, read_rows)
        inside = places < len(rows)
        inside[inside] = rows[places[inside]] == read_rows[inside]
        unusual[places[inside]] = (beyond * np.sign(changes[0].effect))[inside]
    nearest = sketch.label_ids[tests.reference_neighbours[:, 0]]
    order = np.lexsort((rows, tests.similarity, -unusual))
    return tuple(
        RankedPhoto(
            row=int(rows[place]),
            unusual=float(unusual[place]),
            similarity=float(tests.similarity[place]),
            like=info.labels[int(nearest[place])],
        )
        for place in order.tolist()
    )
