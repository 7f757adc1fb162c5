"""Machine types of Compute Engine by name: vCPUs, memory, GPUs, and whether they compute in bfloat16."""

from __future__ import annotations

import dataclasses
import re

_NAME = re.compile(r"(?P<family>[a-z][a-z0-9]*)-(?P<kind>standard|highmem|highcpu)-(?P<vcpus>\d+)(-lssd)?")
_CUSTOM = re.compile(r"((?P<family>[a-z][a-z0-9]*)-)?custom-(?P<vcpus>\d+)-(?P<memory_mb>\d+)(-ext)?")

# GB for each vCPU, by family: standard, highmem, highcpu. https://cloud.google.com/compute/docs/machine-resource
_GB_PER_VCPU: dict[str, tuple[float, float, float]] = {
    "c2": (4, 8, 2),
    "c2d": (4, 8, 2),
    "c3": (4, 8, 2),
    "c3d": (4, 8, 2),
    "c4": (3.75, 7.75, 2),
    "e2": (4, 8, 1),
    "g2": (4, 8, 2),
    "n1": (3.75, 6.5, 0.9),
    "n2": (4, 8, 1),
    "n2d": (4, 8, 1),
    "n4": (4, 8, 2),
    "t2d": (4, 8, 2),
}
_KINDS = ("standard", "highmem", "highcpu")
# Families whose processors have bfloat16 in hardware: Intel since Sapphire Rapids (2023), AMD since Genoa.
_WITH_BFLOAT16 = frozenset({"c3", "c3d", "c4", "n4"})
# Machines of g2 have one L4, except these: https://cloud.google.com/compute/docs/accelerator-optimized-machines#g2-vms
_L4S_BY_VCPUS = {24: 2, 48: 4, 96: 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine type.

    Attributes:
      name: for example "n2-standard-4".
      vcpus: hardware threads.
      memory_gb: of the whole machine.
      has_bfloat16: whether its processor computes in bfloat16.
      num_l4: the NVIDIA L4 GPUs that are part of it. T4s are no part of a machine type; they are added to one of n1.
    """

    name: str
    vcpus: int
    memory_gb: float
    has_bfloat16: bool
    num_l4: int


def machine_of(name: str) -> Machine | None:
    """The machine type with this name; None if its family is not known here."""
    match = _NAME.fullmatch(name)
    custom = _CUSTOM.fullmatch(name)
    if match is not None and match["family"] in _GB_PER_VCPU:
        family, vcpus = match["family"], int(match["vcpus"])
        memory_gb = vcpus * _GB_PER_VCPU[family][_KINDS.index(match["kind"])]
    elif custom is not None:
        family, vcpus = custom["family"] or "n1", int(custom["vcpus"])
        memory_gb = int(custom["memory_mb"]) / 1024
    else:
        return None
    if not vcpus or not memory_gb or family not in _GB_PER_VCPU:
        return None
    return Machine(
        name=name,
        vcpus=vcpus,
        memory_gb=memory_gb,
        has_bfloat16=family in _WITH_BFLOAT16,
        num_l4=_L4S_BY_VCPUS.get(vcpus, 1) if family == "g2" else 0,
    )
