"""How much memory there is, and how much of it embeddings may take."""

from __future__ import annotations

import os

from preprocess.machine.control_groups import group_folders, read_kernel_file

_MEBIBYTE = 1 << 20
# Assumed where the memory of the machine cannot be found out.
_UNKNOWN_BYTES = 4 << 30
# The share of the available memory for embeddings. The rest is for the network in the exported model, the optimizer and
# other programs.
_DEFAULT_SHARE = 0.5
# The files with the limit and the usage of a control group, by version.
_FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None


def _reclaimable(stat: str | None) -> int:
    """The page cache in a group's usage that the kernel frees first when memory is needed."""
    for line in (stat or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def _group_rooms(root: str) -> list[int]:
    """How many bytes each control group of this process still allows."""
    rooms = []
    for version, folder in group_folders("memory", root=root):
        limit_name, usage_name = _FILES[version]
        limit = _number(read_kernel_file(f"{folder}/{limit_name}"))
        usage = _number(read_kernel_file(f"{folder}/{usage_name}"))
        if limit is not None and usage is not None:
            rooms.append(max(0, limit - usage + _reclaimable(read_kernel_file(f"{folder}/memory.stat"))))
    return rooms


def available_memory(*, root: str = "") -> int:
    """How many bytes this process can use without swapping or being killed; control groups may limit them.

    Args:
      root: a prefix for the paths of the kernel's files.
    """
    rooms = _group_rooms(root)
    for line in (read_kernel_file(f"{root}/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    if not rooms and "SC_PHYS_PAGES" in os.sysconf_names:
        rooms.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(rooms, default=_UNKNOWN_BYTES)


class MemoryBudget:
    """Counts how many bytes are left for embeddings."""

    def __init__(self, max_memory_mb: int | None):
        """Begins with the whole budget.

        Args:
          max_memory_mb: the limit that the user gave, in MiB; None for half of the memory that is available now.
        """
        self.left = int(available_memory() * _DEFAULT_SHARE) if max_memory_mb is None else max_memory_mb * _MEBIBYTE

    def take(self, num_bytes: int) -> bool:
        """Subtracts `num_bytes` if so much is left. Returns whether it was."""
        if num_bytes > self.left:
            return False
        self.left -= num_bytes
        return True
