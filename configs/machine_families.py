"""What Google's services refuse of a machine type: machines that cannot run the jobs, and disks that do not fit them.

A machine type is checked by its family, the part before the first "-". An unknown family is accepted: Google makes new
ones each year.
"""

from __future__ import annotations

import re

DISK_TYPES = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
# Of Dataflow: https://cloud.google.com/dataflow/docs/reference/pipeline-options: "specify at least 30 GB to account for
# the worker boot image and local logs".
MIN_DISK_GB = 30

# "Shared core" machines, which Dataflow does not support (https://cloud.google.com/dataflow/docs/guides/
# configure-worker-vm) and Vertex AI does not offer. All have less memory than a worker needs.
_SHARED_CORE = re.compile(r"f1-micro|g1-small|e[24]-(micro|small|medium|custom-(micro|small|medium)-\d+)")
# Arm: https://cloud.google.com/compute/docs/instances/arm-on-compute. Dataflow has such workers, but the list of
# packages and the images that ours get are for x86-64. TensorFlow Serving's image is for x86-64 too.
_ARM = frozenset({"t2a", "c4a", "n4a", "e4a", "a4x"})

# From which disks a family starts: https://cloud.google.com/compute/docs/disks/hyperdisks#machine-type-support and
# https://cloud.google.com/compute/docs/general-purpose-machines; the autoscaler of Google Kubernetes Engine has the
# same as a table (supportedBootDiskTypes). Compute Engine refuses the others when a worker starts, so after the job was
# accepted: "hyperdisk-balanced disk type cannot be used by n2-standard-4 machine type".
_WITHOUT_HYPERDISK = frozenset({"n1", "n2", "n2d", "e2", "c2", "c2d", "t2d", "g2"})
_ONLY_HYPERDISK = frozenset({"c4", "c4d", "c4n", "n4", "n4d", "e4", "g4", "h4d"})
_WITHOUT_STANDARD = frozenset({"c3", "c3d", "g2"})
# Of these, Google's own examples for Dataflow name no disk.
_DEFAULT_IS_GOOD = frozenset({"g2"})


def machine_fault(machine_type: str) -> str | None:
    """Why no job of this project can run on a machine type; None if nothing is known against it."""
    if _SHARED_CORE.fullmatch(machine_type):
        return "has a shared core, which the services do not take for such jobs"
    if family_of(machine_type) in _ARM:
        return "is an Arm machine, and our packages and images are for x86-64"
    return None


def disk_types_for(machine_type: str) -> tuple[str, ...]:
    """The disk types, of those that a recipe may name, that a machine type takes."""
    family = family_of(machine_type)
    if family in _ONLY_HYPERDISK:
        return ("hyperdisk-balanced",)
    refused = {"hyperdisk-balanced"} if family in _WITHOUT_HYPERDISK else set()
    refused |= {"pd-standard"} if family in _WITHOUT_STANDARD else set()
    return tuple(disk for disk in DISK_TYPES if disk not in refused)


def default_disk_type(machine_type: str) -> str | None:
    """The disk type of workers for which none is named; None for that which Dataflow chooses.

    Dataflow's choice for batch jobs is pd-standard, which new families refuse. Nothing public says what it chooses for
    them, so for them the type is named: the only one, or of two the one that Dataflow's documentation names (pd-ssd).
    """
    family = family_of(machine_type)
    if family in _ONLY_HYPERDISK:
        return "hyperdisk-balanced"
    return "pd-ssd" if family in _WITHOUT_STANDARD - _DEFAULT_IS_GOOD else None


def family_of(machine_type: str) -> str:
    """The family of a machine type: n2 of n2-standard-4. `custom-4-8192` is of the family n1."""
    family = machine_type.partition("-")[0]
    return "n1" if family == "custom" else family


def vcpus_of(machine_type: str) -> int | None:
    """The number of vCPUs in the name of a machine type; None if it has none."""
    found = re.search(r"-(\d+)(?=$|-\d+$|-\d+-ext$|-lssd$)", machine_type)
    return int(found[1]) if found else None
