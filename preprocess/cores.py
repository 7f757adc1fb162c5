"""How many processor cores there are for this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores that this process may use, which are not always all of the machine's."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
