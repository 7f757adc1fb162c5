"""The number of processor cores that this process may use."""

from __future__ import annotations

import math
import os

from preprocess.machine.control_groups import group_folders, read_kernel_file


def available_cores(*, root: str = "") -> int:
    """The cores of this process's affinity mask, but not more than the quota of its control groups.

    For example, a container with 2 CPUs on a machine with 64 cores may use 2. A part of a core counts as one core.

    Args:
      root: a prefix for the paths of the kernel's files, for tests.
    """
    quotas = [
        math.ceil(quota) for version, folder in group_folders("cpu", root=root) if (quota := _quota(version, folder))
    ]
    return max(1, min([_cores_of_affinity(), *quotas]))


def cores_of_quota() -> int | None:
    """The cores of this process if the quota of its control groups allows fewer than its affinity mask; else None.

    Libraries look at the mask. With a thread for each of 64 cores and a quota of 2, most threads wait most of the time.
    """
    cores = available_cores()
    return cores if cores < _cores_of_affinity() else None


def _cores_of_affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _quota(version: int, folder: str) -> float | None:
    """The number of cores that a control group may use; None if there is no limit."""
    if version == 2:
        quota, _, period = (read_kernel_file(f"{folder}/cpu.max") or "").strip().partition(" ")
    else:
        quota = (read_kernel_file(f"{folder}/cpu.cfs_quota_us") or "").strip()
        period = (read_kernel_file(f"{folder}/cpu.cfs_period_us") or "").strip()
    # "max" in version 2 and -1 in version 1 mean that there is no limit.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None
