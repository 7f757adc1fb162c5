"""The gate of `--assert_accuracy_at_least`: whether a model is good enough to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.counts import counted


def measure_gate(metrics: Mapping[str, Any], at_least: float) -> dict[str, Any]:
    """Compares the accuracy of a model with the least that is wanted.

    The lower bound of the 95% interval counts, so a few lucky examples do not open the gate. The test set decides if
    there is one, since checkpoint, temperature and threshold were chosen on the evaluation set. Images that other sets
    have too are left out; if none is left, the gate stays closed.

    Args:
      metrics: as in `metrics.json`.
      at_least: the accuracy that is wanted, in [0, 1].

    Returns:
      JSON: `asserted`, `measured_on` ("test" or "eval"), `examples`, `accuracy` and `lower_bound` (both null without an
      example), `passed`.
    """
    name = "test" if metrics.get("test") else "eval"
    whole = metrics[name]
    # It is missing if there are no such images.
    measured = whole.get("without_shared_images") or whole
    lower_bound = measured["accuracy_interval"][0] if measured["examples"] else None
    return {
        "asserted": at_least,
        "measured_on": name,
        "examples": measured["examples"],
        "accuracy": measured["accuracy"],
        "lower_bound": lower_bound,
        "passed": lower_bound is not None and bool(lower_bound >= at_least),
    }


def refusal(gate: Mapping[str, Any]) -> str:
    """One sentence about a gate that is closed."""
    if gate["lower_bound"] is None:
        return f"each image of the {gate['measured_on']} set is in another set of the run too, so it measures nothing"
    return (
        f"the accuracy on the {gate['measured_on']} set is {gate['accuracy']:.1%} of "
        f"{counted(gate['examples'], 'example')}, and at least {gate['lower_bound']:.1%} with 95% confidence; "
        f"--assert_accuracy_at_least wants {gate['asserted']:.1%}"
    )
