"""Estimates: quantities that are known within a range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

# In about 95 % of samples the mean is at most this number of standard errors away from the true mean.
_STANDARD_ERRORS = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A quantity with its range: 0 <= low <= expected <= high. The name of the variable says the unit.

    Raises:
      ValueError: the numbers are not in this order, or not finite.
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
          ValueError, KeyError, TypeError: it is not what `to_json` gives.
        """
        return cls(*(float(data[field.name]) for field in dataclasses.fields(cls)))


def exactly(value: float) -> Estimate:
    """The estimate of a quantity that is known exactly."""
    return Estimate(value, value, value)


def mean_of(values: Sequence[float], *, weights: Sequence[float] | None = None, is_all: bool = False) -> Estimate:
    """Estimates the mean of a population from a random sample: the sample's mean, plus or minus two standard errors.

    Args:
      values: the sample: at least one value, none negative.
      weights: the weight of each value, above 0; None if all have the weight 1.
      is_all: the sample is the whole population, so the mean is exact.
    """
    weights = weights or [1.0] * len(values)
    total = sum(weights)
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / total
    if is_all:
        return exactly(mean)
    count = len(values)
    if count == 1:
        return Estimate(mean / 2, mean, 2 * mean)  # One value says nothing about the variance.
    squares = sum((weight * (value - mean)) ** 2 for weight, value in zip(weights, values, strict=True))
    margin = _STANDARD_ERRORS * math.sqrt(squares * count / (count - 1)) / total
    return Estimate(max(0.0, mean - margin), mean, mean + margin)


def share_of(hits: Sequence[bool], *, weights: Sequence[float] | None = None, is_all: bool = False) -> Estimate:
    """Estimates the share of a population that has a property, from a random sample: Wilson's interval of 95 %.

    If no member of the sample has the property, the upper end of this interval is still above zero.

    Args:
      hits: whether each member of the sample has the property; at least one member.
      weights: the weight of each member, above 0; None if all have the weight 1.
      is_all: the sample is the whole population, so the share is exact.
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
