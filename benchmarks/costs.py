"""What a million images cost on machines that one can rent, by arithmetic from rates that were measured here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

# A vCPU is a hardware thread, and two of them share a core: https://cloud.google.com/compute/docs/cpu-platforms
VCPUS_A_CORE = 2
# A worker of Dataflow, batch, in us-central1: configs/prices.yaml. It costs the same on machines of each family.
DATAFLOW_DOLLARS_PER_VCPU_HOUR, DATAFLOW_DOLLARS_PER_GB_HOUR = 0.056, 0.003557


@dataclasses.dataclass(frozen=True, kw_only=True)
class RentedMachine:
    """A machine type of Compute Engine.

    Attributes:
      name: its name.
      vcpus: hardware threads.
      memory_gb: of the whole machine.
      dollars_per_hour: the list price on demand in us-central1.
      spot_dollars_per_hour: the price as a Spot VM there, which changes. Such a machine may be taken back
        at any time; the same command then goes on with another one.
      precisions: those that its processor computes in hardware.
    """

    name: str
    vcpus: int
    memory_gb: float
    dollars_per_hour: float
    spot_dollars_per_hour: float
    precisions: tuple[str, ...]

    @property
    def dataflow_dollars_per_hour(self) -> float:
        """The list price as a worker of Dataflow, without its disk."""
        return self.vcpus * DATAFLOW_DOLLARS_PER_VCPU_HOUR + self.memory_gb * DATAFLOW_DOLLARS_PER_GB_HOUR


_ALL = ("float32", "bfloat16", "int8")
# Prices: written down in November 2026, not from Google's own pages, which could not be read, but from the catalog v8
# of skypilot-org/skypilot-catalog on GitHub. There, machines of a family cost as much for each vCPU: n2-standard-48
# $2.33083, as a Spot VM $0.76205; c3-standard-44 $2.21769 and $0.34663; c3d-standard-90 $4.08591 and $0.61758. Check
# them against https://cloud.google.com/compute/all-pricing.
MACHINES = (
    RentedMachine(
        name="n2-standard-4",
        vcpus=4,
        memory_gb=16,
        dollars_per_hour=0.1942,
        spot_dollars_per_hour=0.0635,
        precisions=("float32", "int8"),
    ),
    RentedMachine(
        name="c3-standard-4",
        vcpus=4,
        memory_gb=16,
        dollars_per_hour=0.2016,
        spot_dollars_per_hour=0.0315,
        precisions=_ALL,
    ),
    RentedMachine(
        name="c3d-standard-4",
        vcpus=4,
        memory_gb=16,
        dollars_per_hour=0.1816,
        spot_dollars_per_hour=0.0274,
        precisions=_ALL,
    ),
)


def cost_of_a_million(choice: str, images_per_sec: float, num_cores: int, machine: RentedMachine) -> str:
    """The cost of a million images on a machine, with its calculation.

    Args:
      choice: the engine and its precision.
      images_per_sec: the rate that was measured.
      num_cores: on so many cores.
      machine: the machine to rent.
    """
    per_core = images_per_sec / num_cores
    cores = machine.vcpus / VCPUS_A_CORE
    hours = 1_000_000 / (per_core * cores) / 3600
    return (
        f"- {choice} on {machine.name}: {images_per_sec:.1f} images/s / {num_cores} cores = {per_core:.2f} a core; "
        f"x {machine.vcpus} vCPUs / {VCPUS_A_CORE} = {per_core * cores:.1f} images/s a machine; "
        f"1,000,000 / {per_core * cores:.1f} / 3600 = {hours:.2f} machine-hours; "
        f"x ${machine.dollars_per_hour:g} = **${hours * machine.dollars_per_hour:.2f}**, "
        f"as a Spot VM x ${machine.spot_dollars_per_hour:g} = ${hours * machine.spot_dollars_per_hour:.2f}, "
        f"as a worker of Dataflow x ${machine.dataflow_dollars_per_hour:.4f} = "
        f"${hours * machine.dataflow_dollars_per_hour:.2f}"
    )


def cost_lines(results: Sequence[dict[str, Any]], arithmetic: Sequence[str]) -> list[str]:
    """The costs of what the benchmarks measured, as Markdown; nothing if they measured no rate.

    Args:
      results: of the benchmarks.
      arithmetic: of the processor on which they ran.
    """
    measured = [
        (one["choice"], one["ours"], result["cores"]) for result in results for one in result.get("measured", ())
    ]
    if not measured:
        return []
    amx = "has AMX, as that of c3" if "amx_bf16" in arithmetic else "lacks AMX, which makes c3 faster than this"
    return [
        "",
        "A million images on machines of Compute Engine (us-central1, on demand), by arithmetic, not by a run:",
        "",
        *(
            cost_of_a_million(*one, machine)
            for one in measured
            for machine in MACHINES
            if one[0].split("/")[1] in machine.precisions
        ),
        "",
        f"This takes a core there to be worth a core here (the processor here {amx}), and a vCPU to be half a core. It "
        "counts the steady state only: no start of machines, no disk, no shuffle, no network. The prices are list "
        "prices; check them. Those of Spot VMs change, and such a machine may be taken back at any time.",
    ]
