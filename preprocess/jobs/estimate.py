"""A quantity that is known within a range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

# About 95 % of samples have their mean within so many standard errors of the truth.
_STANDARD_ERRORS = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A quantity, not negative: 0 <= low <= expected <= high, all in the unit of its name.

    Raises:
      ValueError: out of that order, or not finite.
    """

    low: float
    expected: float
    high: float

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.expected <= self.high < math.inf):
            raise ValueError(f"not 0 <= low <= expected <= high: {self.low}, {self.expected}, {self.high}")

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: Estimate | float) -> Estimate:
        if not isinstance(other, Estimate):
            other = exactly(other)
        return Estimate(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def __rtruediv__(self, dividend: float) -> Estimate:
        return Estimate(dividend / self.high, dividend / self.expected, dividend / self.low)

    def to_json(self) -> dict[str, float]:
        """The fields as JSON, to six digits."""
        return {name: float(f"{value:.6g}") for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: Any) -> Estimate:
        """Reads what `to_json` gives.

        Raises:
          ValueError, KeyError, TypeError: it is something else.
        """
        return cls(*(float(data[field.name]) for field in dataclasses.fields(cls)))


def exactly(value: float) -> Estimate:
    """What is known without a range."""
    return Estimate(value, value, value)


def mean_of(values: Sequence[float], *, weights: Sequence[float] | None = None, is_all: bool = False) -> Estimate:
    """The mean of a population, from values drawn from it by lot: theirs, give or take two standard errors.

    Args:
      values: at least one, not negative.
      weights: how often each stands for itself, above 0; None for once.
      is_all: they are the whole population, so nothing is uncertain.
    """
    weights = weights or [1.0] * len(values)
    total = sum(weights)
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / total
    if is_all:
        return exactly(mean)
    count = len(values)
    if count == 1:
        return Estimate(mean / 2, mean, 2 * mean)  # One says nothing of how the others differ.
    squares = sum((weight * (value - mean)) ** 2 for weight, value in zip(weights, values, strict=True))
    margin = _STANDARD_ERRORS * math.sqrt(squares * count / (count - 1)) / total
    return Estimate(max(0.0, mean - margin), mean, mean + margin)


def share_of(hits: Sequence[bool], *, weights: Sequence[float] | None = None, is_all: bool = False) -> Estimate:
    """The share of a population that something is true of, from some drawn by lot: Wilson's interval, 95 %.

    Unlike a mean give or take its errors, it does not claim that there are none because none was drawn.

    Args:
      hits: whether it is true, of each; at least one.
      weights: how often each stands for itself, above 0; None for once.
      is_all: they are the whole population, so nothing is uncertain.
    """
    weights = weights or [1.0] * len(hits)
    total = sum(weights)
    share = sum(weight for weight, hit in zip(weights, hits, strict=True) if hit) / total
    if is_all:
        return exactly(share)
    count = total**2 / sum(weight**2 for weight in weights)
    z2 = _STANDARD_ERRORS**2
    center = (share + z2 / (2 * count)) / (1 + z2 / count)
    margin = _STANDARD_ERRORS * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Estimate(min(share, max(0.0, center - margin)), share, max(share, min(1.0, center + margin)))
