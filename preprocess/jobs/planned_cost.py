"""The planned cost of a job, and its comparison with what the job took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from preprocess.jobs.block_results import FROM_CACHE, FROM_EARLIER_RUN
from preprocess.jobs.estimate import Estimate

_QUANTITIES = ("wall_sec", "images_per_sec", "read_bytes", "decode_sec_per_image", "failed_percent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedCost:
    """What a plan estimates for embedding one list.

    Attributes:
      where: the machines, as a text for people.
      wall_sec: seconds from the start, or the submission, to the report; None if nothing is known about the machines.
      images_per_sec: rows that become records, divided by `wall_sec`; None if that is None.
      read_bytes: bytes of all image files that can be decoded.
      decode_sec_per_image: seconds in a decoder for each image that can be decoded.
      failed_percent: percentage of the images that fail.
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
    def from_json(cls, data: Any) -> PlannedCost:
        """Reads what `to_json` gives.

        Raises:
          ValueError, KeyError, TypeError: it is not what `to_json` gives.
        """
        estimates = {name: None if data[name] is None else Estimate.from_json(data[name]) for name in _QUANTITIES}
        if not all(estimates[name] for name in _QUANTITIES[2:]) or not isinstance(data["where"], str):
            raise ValueError("a planned cost lacks an estimate")
        return cls(where=data["where"], **estimates)  # type: ignore[arg-type]


def compared(
    planned_cost: PlannedCost, *, actual: Mapping[str, float | None], sources: Mapping[str, int], is_retry: bool
) -> dict[str, Any]:
    """The planned cost beside what the job took, as JSON for its report; or the reason why they are not compared.

    Args:
      planned_cost: of the job.
      actual: the measured quantities by name; None for those that are not known.
      sources: the number of records by the source of their embedding.
      is_retry: the run tried only failed rows again.
    """
    why_not = _why_not(sources, is_retry=is_retry)
    return {
        "where": planned_cost.where,
        "compared": why_not is None,
        "why_not": why_not,
        "quantities": {
            name: {**estimate.to_json(), "actual": actual[name] if why_not is None else None}
            for name in _QUANTITIES
            if (estimate := getattr(planned_cost, name)) is not None
        },
    }


def _why_not(sources: Mapping[str, int], *, is_retry: bool) -> str | None:
    if is_retry:
        return "only rows that had failed were tried again"
    for source, what in ((FROM_EARLIER_RUN, "an earlier run embedded"), (FROM_CACHE, "the cache gave")):
        if sources.get(source):
            return f"{what} {sources[source]} of the records"
    return None
