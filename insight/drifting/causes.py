"""What is likely to be behind a difference between new photos and training photos, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.data.photo_statistics import PHOTO_STATISTICS

# A difference of mean ranks: the probability that a new photo has more than a training photo, less a half.
_CLEAR_EFFECT = 0.15
_WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("of lower contrast", "of higher contrast"),
    "sharpness": ("more blurred", "sharper, or noisier"),
    "warmth": ("bluer", "redder"),
    "greenness": ("more purple", "greener"),
    "colourfulness": ("greyer", "more colourful"),
}
# Photos of a class that the training has are as near to its photos as these are to each other: half of them are nearer
# than the median. Of a new class, hardly any are.
_NOVEL_QUANTILE = 0.35
# A class counts as more or less frequent if its share differs by this many standard errors.
_CLEAR_ERRORS = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoChange:
    """How one number of photos changed.

    Attributes:
      statistic: one of `PHOTO_STATISTICS`.
      effect: the difference of mean ranks, between -0.5 and 0.5.
      before: the median of the training photos.
      now: the median of the new photos.
    """

    statistic: str
    effect: float
    before: float
    now: float

    @property
    def words(self) -> str:
        """How the new photos are, compared with the training photos: "darker"."""
        return _WORDS[self.statistic][self.effect > 0]


def photo_changes(reference: np.ndarray, new: np.ndarray, effects: np.ndarray) -> list[PhotoChange]:
    """The clear changes, the largest first.

    Args:
      reference: float32 [p, 6], of training photos.
      new: float32 [n, 6], of new photos.
      effects: float64 [6], from `compare_numbers`.
    """
    before, now = np.median(reference, axis=0), np.median(new, axis=0)
    changes = [
        PhotoChange(statistic=name, effect=float(effects[k]), before=float(before[k]), now=float(now[k]))
        for k, name in enumerate(PHOTO_STATISTICS)
        if abs(effects[k]) >= _CLEAR_EFFECT
    ]
    return sorted(changes, key=lambda change: -abs(change.effect))


def channels_look_swapped(reference: np.ndarray, new: np.ndarray) -> bool:
    """Whether the new photos would fit clearly better if their red and blue were exchanged.

    Takes float32 [p, 6] of training photos and [n, 6] of new photos.
    """
    warmth = PHOTO_STATISTICS.index("warmth")
    before, now = np.median(reference[:, warmth]), np.median(new[:, warmth])
    spread = np.median(np.abs(reference[:, warmth] - before)) + 1e-6
    return bool(abs(now - before) > spread and abs(-now - before) < 0.5 * abs(now - before))


def is_new_class(group: np.ndarray, reference: np.ndarray) -> bool:
    """Whether a group of new photos is unlike the training photos, rather than many photos of a class that they have.

    Args:
      group: float64 [g]: the similarity of each photo of the group to the nearest training photo.
      reference: float64 [m]: of each training photo to the nearest other one.
    """
    return bool(len(group) >= 2 and np.median(group) < np.quantile(reference, _NOVEL_QUANTILE))


def mix_changes(
    before: np.ndarray, now: np.ndarray, *, labels: Sequence[str], num_before: int, num_now: int
) -> list[str]:
    """The classes that became clearly more or less frequent, the largest change first, as "roses 20% → 55%".

    Args:
      before: float64 [num_labels]: the share of each class among training photos, as `class_mix` finds it.
      now: the same of the new photos.
      labels: the names.
      num_before: the number of training photos.
      num_now: the number of new photos.
    """
    pooled = (before * num_before + now * num_now) / (num_before + num_now)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-4) * (1 / num_before + 1 / num_now))
    clear = np.flatnonzero(np.abs(now - before) >= _CLEAR_ERRORS * error)
    order = clear[np.argsort(-np.abs(now - before)[clear], kind="stable")]
    return [f"{labels[k]} {before[k]:.0%} → {now[k]:.0%}" for k in order.tolist()]
