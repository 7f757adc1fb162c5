"""Formats times, bytes, money and rates for people."""

from __future__ import annotations

from preprocess.jobs.estimate import Estimate

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86_400.0}
_BYTES = {"bytes": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def _plain(number: float) -> str:
    """The number with one or two significant digits, or without decimals from 10 on."""
    if number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}" if number >= 1 else f"{number:.1g}"


def _with_unit(estimate: Estimate | float, unit: str, size: float) -> str:
    suffix = f" {unit}" if unit else ""
    if not isinstance(estimate, Estimate):
        return f"{_plain(estimate / size)}{suffix}"
    low, expected, high = (_plain(value / size) for value in (estimate.low, estimate.expected, estimate.high))
    return f"{expected}{suffix}" if low == high else f"{expected}{suffix} ({low} - {high})"


def _expected(amount: Estimate | float) -> float:
    return amount.expected if isinstance(amount, Estimate) else amount


def duration(seconds: Estimate | float) -> str:
    """A time as text, for example `41 s (35 - 50)`, in seconds, minutes, hours or days."""
    # A unit is used for two or more of it, so 119 s is not shown as 2 minutes.
    unit = [unit for unit, size in _SECONDS.items() if _expected(seconds) >= 2 * size or size == 1][-1]
    return _with_unit(seconds, unit, _SECONDS[unit])


def num_bytes(amount: Estimate | float) -> str:
    """A number of bytes as text, for example `27 GB (25 - 30)`, in powers of a thousand."""
    unit = [unit for unit, size in _BYTES.items() if _expected(amount) >= size or size == 1][-1]
    return _with_unit(amount, unit, _BYTES[unit])


def number(amount: Estimate | float, unit: str = "") -> str:
    """A number as text, for example `61 (50 - 65)`. If there is a unit, it stands after the first number."""
    return _with_unit(amount, unit, 1.0)


def _cents(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.2f}"


def dollars(amount: Estimate | float) -> str:
    """US dollars as text, for example `$0.63 (0.41 - 1.10)`."""
    if not isinstance(amount, Estimate):
        return f"${_cents(amount)}"
    return f"${_cents(amount.expected)} ({_cents(amount.low)} - {_cents(amount.high)})"
