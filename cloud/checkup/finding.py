"""What a check of the project found: that something is fine, or how to mend it, or that it could not be checked."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
      verdict: "fine", "mend", or "unknown" if it could not be checked.
      what: what was checked, and what was found, in one line.
      remedy: for "mend" the command or the change that mends it; for "unknown" what would tell.
    """

    verdict: Literal["fine", "mend", "unknown"]
    what: str
    remedy: str = ""


def fine(what: str) -> Finding:
    """A finding that nothing needs to be done."""
    return Finding(verdict="fine", what=what)


def mend(what: str, remedy: str = "") -> Finding:
    """A finding that something must be done; without a remedy, its text says how."""
    return Finding(verdict="mend", what=what, remedy=remedy)


def unknown(what: str, remedy: str) -> Finding:
    """A finding that something could not be checked."""
    return Finding(verdict="unknown", what=what, remedy=remedy)
