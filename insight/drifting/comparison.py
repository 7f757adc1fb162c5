"""Compares new photos with the sketch of a training set: the verdict, its numbers, and the photos behind it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from insight.drifting.causes import PhotoChange, channels_look_swapped, is_new_class, mix_changes, photo_changes
from insight.drifting.new_photos import NewPhotos
from insight.drifting.two_samples import EmbeddingTests, class_mix, compare_embeddings, compare_numbers
from trainer.data.photo_statistics import PHOTO_STATISTICS
from trainer.data.training_sketch import TrainingSketch
from trainer.export.model_info import ModelInfo

_MIN_PHOTOS = 20
_MIN_STATISTICS = 20
# The share of the false alarms that each of both questions has, that about the embeddings and that about brightness
# and the like. The first one has more, since what it asks for is harder to see.
_EMBEDDING_SHARE, _STATISTICS_SHARE = 0.8, 0.2
_GROUP_LEVEL = 0.05
# Two embeddings of one photo, by engines of different precision, differ by no more steps of the sketch's rounding.
_SAME_STEPS = 2.5
# In fewer numbers, embeddings of different photos may be as near.
_TELLING_NUMBERS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedPhoto:
    """A new photo and how much it is behind the difference.

    Attributes:
      place: of the new photos that were compared.
      unusual: how many more of its nearest photos are new ones than chance would give, as a share; with photos that
        changed in brightness and the like, how far it is beyond the training photos, in ranks.
      similarity: to the nearest training photo, at most 1.
      like: the class of the training photos that are nearest.
    """

    place: int
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
      num_in_training: new photos that are training photos, too, as their embeddings say.
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
    num_in_training: int
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
            f"No drift seen: the {compared} differ from the training photos no more than chance would have it "
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
        if self.training_words:
            lines.append(f"note:    {self.training_words}")
        return lines

    @property
    def training_words(self) -> str:
        """What follows from new photos that are training photos, too; empty if there are none."""
        if not self.num_in_training:
            return ""
        which = f"{self.num_in_training:,} of the new photos {'is' if self.num_in_training == 1 else 'are'}"
        return (
            f"{which} in the training set, too. Name photos that the model has not seen: those that it has seen look "
            "like the training in any case, and hide how the others differ."
        )

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
            "photos_in_training": self.num_in_training,
        }


def combined_p_value(embeddings: float, photo_statistics: float | None) -> float:
    """The p-value of both questions together (a weighted Bonferroni test: Genovese, Roeder and Wasserman, 2006)."""
    if photo_statistics is None:
        return embeddings
    return min(1.0, embeddings / _EMBEDDING_SHARE, photo_statistics / _STATISTICS_SHARE)


def require_enough(count: int, whose: str) -> None:
    """Raises InputError if there are too few photos to say anything; `whose` begins the message."""
    if count < _MIN_PHOTOS:
        raise InputError(f"{whose} {counted(count, 'photo')}; to compare, {_MIN_PHOTOS} or more are needed.")


def compare(sketch: TrainingSketch, photos: NewPhotos, *, info: ModelInfo, alarm_level: float) -> Comparison:
    """Compares new photos with a training set.

    Args:
      sketch: of the training set.
      photos: the new photos, embedded by the same network.
      info: of the model.
      alarm_level: the share of false alarms.

    Raises:
      InputError: there are too few photos to say anything.
    """
    if photos.unread and len(photos) < _MIN_PHOTOS:
        raise InputError(
            f"{counted(len(photos.unread), 'photo')} could not be read, and {counted(len(photos), 'photo')} could; to "
            f"compare, {_MIN_PHOTOS} or more are needed. The first: {photos.unread[0].message}"
        )
    require_enough(len(photos), "without those of the same content, the new photos are")
    require_enough(len(sketch.vectors), "--model_dir: the model has")
    with doing("comparing the photos with those of the training"):
        projected = sketch.project(photos.embeddings)
        tests = compare_embeddings(sketch.vectors, projected)
    statistics, read_places = photos.statistics, photos.read_places
    if min(len(sketch.statistics), len(statistics)) < _MIN_STATISTICS:
        statistics, read_places = statistics[:0], read_places[:0]
    p_values = {"embeddings": tests.p_value, "mmd": tests.mmd, "new_group": tests.new_group}
    effects = np.zeros(len(PHOTO_STATISTICS))
    if len(statistics):
        p_values["photo_statistics"], effects = compare_numbers(sketch.statistics, statistics)
    smallest = combined_p_value(tests.p_value, p_values.get("photo_statistics"))
    changes = tuple(photo_changes(sketch.statistics, statistics, effects)) if len(statistics) else ()
    mix = _mix(sketch, tests, info)
    cause, words = None, ""
    if smallest <= alarm_level:
        cause, words = _cause(sketch, statistics, p_values, changes, mix, tests, info)
    return Comparison(
        p_value=smallest,
        alarm_level=alarm_level,
        p_values=p_values,
        cause=cause,
        cause_words=words,
        changes=changes,
        mix=tuple(mix),
        num_compared=len(photos),
        num_read=len(statistics),
        num_in_training=_in_training(sketch, projected, tests.reference_neighbours[:, 0]),
        ranked=_ranked(
            sketch,
            tests,
            info,
            read_places,
            statistics,
            changes=changes if cause == "photos" else (),
            first=tests.group if cause == "new_class" else tests.group[:0],
        ),
    )


def _in_training(sketch: TrainingSketch, projected: np.ndarray, nearest: np.ndarray) -> int:
    """How many new photos have the embedding of the training photo that is nearest, as rounded in the sketch."""
    if projected.shape[1] < _TELLING_NUMBERS:
        return 0
    differences = np.abs(projected - sketch.vectors[nearest]) / sketch.steps
    return int((differences < _SAME_STEPS).all(axis=1).sum())


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
    info: ModelInfo,
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
    if p_values["new_group"] <= _GROUP_LEVEL and is_new_class(
        tests.similarity[tests.group], tests.reference_similarity
    ):
        like = np.bincount(sketch.label_ids[tests.reference_neighbours[tests.group, 0]]).argmax()
        return "new_class", (
            f"{counted(len(tests.group), 'photo')} form a group of their own that the training photos hardly have: "
            "perhaps a class that the model does not know. Of the classes that it knows, they are most like "
            f"{info.labels[int(like)]}."
        )
    if mix:
        return "class_mix", f"classes became more or less frequent: {', '.join(mix[:4])}."
    return "unknown", "not known. The photos on the page are those that are least like the training photos."


def _ranked(
    sketch: TrainingSketch,
    tests: EmbeddingTests,
    info: ModelInfo,
    read_places: np.ndarray,
    statistics: np.ndarray,
    *,
    changes: tuple[PhotoChange, ...],
    first: np.ndarray,
) -> tuple[RankedPhoto, ...]:
    """All photos that were compared: those of `first` in their order, then the most unusual ones.

    Of equally unusual ones, that comes first which is least like a training photo.
    """
    unusual = tests.unusual
    if changes:
        # How far each photo that was read is on the side to which the photos moved.
        column = PHOTO_STATISTICS.index(changes[0].statistic)
        ordered = np.sort(sketch.statistics[:, column])
        beyond = np.searchsorted(ordered, statistics[:, column], side="left") / len(ordered) - 0.5
        unusual = np.full(len(tests.unusual), -1.0)
        unusual[read_places] = beyond * np.sign(changes[0].effect)
    nearest = sketch.label_ids[tests.reference_neighbours[:, 0]]
    rank = np.full(len(unusual), len(first))
    rank[first] = np.arange(len(first))
    order = np.lexsort((tests.similarity, -unusual, rank))
    return tuple(
        RankedPhoto(
            place=place,
            unusual=float(unusual[place]),
            similarity=float(tests.similarity[place]),
            like=info.labels[int(nearest[place])],
        )
        for place in order.tolist()
    )
