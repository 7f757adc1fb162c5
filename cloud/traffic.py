"""How the requests of an endpoint are split between the versions that are deployed there, in whole percent."""

from __future__ import annotations

from collections.abc import Mapping

NEW = "0"
"""What gcloud calls the model that a command deploys."""


def with_new(split: Mapping[str, int], percent: int) -> dict[str, int]:
    """The split after a new version got its share. The others share the rest as they did.

    Args:
      split: percent by the id of a deployed model.
      percent: of the new one, from 0 to 100; it gets all if no other version is there.
    """
    if not any(split.values()):
        return {NEW: 100}
    rest = _shares(split, 100 - percent)
    return {NEW: percent, **{name: share for name, share in rest.items() if share}}


def without(split: Mapping[str, int], gone: str) -> dict[str, int]:
    """The split after a version has gone: the others share its part as they share the rest; empty without others.

    If the others had nothing, the first of them gets all, since an endpoint has to send its requests somewhere.
    """
    others = {name: share for name, share in split.items() if name != gone}
    if not others:
        return {}
    if not any(others.values()):
        return {name: 100 if number == 0 else 0 for number, name in enumerate(others)}
    return _shares(others, 100)


def _shares(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers that add up to `total`, in proportion to weights. The largest remainders are rounded up."""
    whole = sum(weights.values())
    shares = {name: total * weight // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: -(total * weights[name] % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
