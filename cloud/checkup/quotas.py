"""Checks the quotas of Compute Engine in the region of the jobs, for the workers that the recipe asks for.

Quotas of a region and their names: https://cloud.google.com/compute/resource-usage. Those of new machine families are
not among them, and those of Vertex AI are elsewhere: https://cloud.google.com/vertex-ai/docs/quotas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from cloud.checkup.finding import Finding, fine, mend, unknown
from cloud.gcloud import Gcloud
from configs.cloud import DataflowOptions
from configs.machine_families import default_disk_type, family_of, vcpus_of

# The families that have a quota of their own in each region. All other old families share CPUS.
_CPU_METRICS = {
    "n2": "N2_CPUS",
    "n2d": "N2D_CPUS",
    "c2": "C2_CPUS",
    "c2d": "C2D_CPUS",
    "c3": "C3_CPUS",
    "t2d": "T2D_CPUS",
    "e2": "CPUS",
    "n1": "CPUS",
    "g2": "CPUS",
}
# FlexRS: https://cloud.google.com/dataflow/docs/guides/flexrs.
_PREEMPTIBLE = "PREEMPTIBLE_CPUS"
_DISK_METRICS = {"pd-standard": "DISKS_TOTAL_GB", "pd-balanced": "SSD_TOTAL_GB", "pd-ssd": "SSD_TOTAL_GB"}
_GPU_METRICS = {"t4": "NVIDIA_T4_GPUS", "l4": "NVIDIA_L4_GPUS"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Need:
    """What one worker takes of a quota."""

    metric: str
    each: int


def check_quotas(options: DataflowOptions, lists: int, gcloud: Gcloud) -> Iterator[Finding]:
    """For each quota, whether its room is enough for a worker of each list, and for how many.

    Args:
      options: the recipe's section `dataflow`.
      lists: the number of lists, whose jobs run at the same time.
      gcloud: of the project and the region.

    Raises:
      InputError: the region does not say.
    """
    command = ["gcloud", "compute", "regions", "describe", gcloud.region, f"--project={gcloud.project}"]
    quotas = _room(gcloud.call(command))
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={gcloud.project}"
    wanted = lists * options.max_workers
    for need in _needs(options):
        room = quotas.get(need.metric)
        if room is None and need.metric == _PREEMPTIBLE:
            continue
        if room is None:
            yield unknown(f"quota {need.metric} in {gcloud.region}: the region does not list it", page)
            continue
        workers = int(room // need.each)
        said = f"quota {need.metric} in {gcloud.region}: room for {room:g}"
        if workers >= wanted:
            yield fine(f"{said}, the recipe may take {need.each * wanted}")
        elif workers >= lists:
            yield fine(f"{said}, so for {workers} of up to {wanted} workers ({lists} lists x max_workers)")
        else:
            least = f"{lists} lists with one worker each take {need.each * lists}"
            yield mend(f"{said}, and {least}", f"ask for more: {page}")


def _room(region: Any) -> dict[str, float]:
    """What is left of each quota of a region, as Compute Engine describes it."""
    # Who has no quota for preemptible machines gets them from the quotas of the others.
    rows = region.get("quotas") if isinstance(region, Mapping) else None
    return {
        str(one["metric"]): float(one.get("limit", 0)) - float(one.get("usage", 0))
        for one in rows or ()
        if isinstance(one, Mapping) and "metric" in one and (one.get("limit") or one["metric"] != _PREEMPTIBLE)
    }


def _needs(options: DataflowOptions) -> Iterator[_Need]:
    family, vcpus = family_of(options.machine_type), vcpus_of(options.machine_type)
    metric = _CPU_METRICS.get(family, f"{family.upper()}_CPUS")
    if vcpus is not None:
        yield _Need(metric=metric, each=vcpus)
        if options.flexrs != "none":
            yield _Need(metric=_PREEMPTIBLE, each=vcpus)
    disk = options.disk_type or default_disk_type(options.machine_type) or "pd-standard"
    yield _Need(metric=_DISK_METRICS.get(disk, "HDB_TOTAL_GB"), each=options.disk_gb)
    if options.public_ips:
        yield _Need(metric="IN_USE_ADDRESSES", each=1)
    if options.gpu != "none":
        yield _Need(metric=_GPU_METRICS[options.gpu], each=1)
