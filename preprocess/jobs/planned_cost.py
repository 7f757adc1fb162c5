"""What a plan said about a job, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from preprocess.jobs.block_results import FROM_CACHE, FROM_EARLIER_RUN
from preprocess.jobs.estimate import Estimate

_QUANTITIES = ("wall_sec", "images_per_sec", "read_bytes", "decode_sec_per_image", "failed_percent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a plan expects of embedding one list.

    Attributes:
      where: the machines, for people.
      wall_sec: from the start, or the submission, to the report; None where nothing is known of the machines.
      images_per_sec: rows that become records, over `wall_sec`; None likewise.
      read_bytes: of the image files that can be decoded.
      decode_sec_per_image: in a decoder, an image that can be decoded.
      failed_percent: of the images.
    """

    where: str
    wall_sec: Estimate | None
    images_per_sec: Estimate | None
    read_bytes: Estimate
    decode_sec_per_image: Estimate
    failed_percent: Estimate

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        quantities = {name: getattr(self, name) for name in _QUANTITIES}
        return {
            "where": self.where,
            **{name: None if estimate is None else estimate.to_json() for name, estimate in quantities.items()},
        }

    @classmethod
    def from_json(cls, data: Any) -> Prediction:
        """Reads what `to_json` gives.

        Raises:
          ValueError, KeyError, TypeError: it is something else.
        """
        estimates = {name: None if data[name] is None else Estimate.from_json(data[name]) for name in _QUANTITIES}
        if not all(estimates[name] for name in _QUANTITIES[2:]) or not isinstance(data["where"], str):
            raise ValueError("a prediction lacks an estimate")
        return cls(where=data["where"], **estimates)  # type: ignore[arg-type]


def compared(
    prediction: Prediction, *, actual: Mapping[str, float | None], sources: Mapping[str, int], is_retry: bool
) -> dict[str, Any]:
    """A prediction beside what the job took, as JSON for its report; or why it would not be fair to compare.

    Args:
      prediction: of the job.
      actual: its quantities as they turned out, by name; None for what is not known.
      sources: records by where their embedding came from.
      is_retry: only rows that had failed were tried again.
    """
    why_not = _why_not(sources, is_retry=is_retry)
    return {
        "where": prediction.where,
        "compared": why_not is None,
        "why_not": why_not,
        "quantities": {
            name: {**estimate.to_json(), "actual": actual[name] if why_not is None else None}
            for name in _QUANTITIES
            if (estimate := getattr(prediction, name)) is not None
        },
    }


def _why_not(sources: Mapping[str, int], *, is_retry: bool) -> str | None:
    if is_retry:
        return "only rows that had failed were tried again"
    for source, what in ((FROM_EARLIER_RUN, "an earlier run embedded"), (FROM_CACHE, "the cache gave")):
        if sources.get(source):
            return f"{what} {sources[source]} of the records"
    return None
