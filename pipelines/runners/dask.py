"""Completes the flags of Beam's DaskRunner.

This module uses neither Beam nor Dask.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.runners.dataflow import GivenFlags, runner_kind

_PARTITION_SIZE = "--dask_partition_size"
_PARTITIONS = "--dask_npartitions"


def uses_dask(flags: Sequence[str]) -> bool:
    """True if flags of Beam name its Dask runner."""
    return runner_kind(GivenFlags(flags).value("--runner") or "") == "dask"


def complete_dask_flags(given: Sequence[str]) -> list[str]:
    """All of Beam's flags for a job on Dask.

    A partition is what one worker gets. Beam would put up to 128 elements into one, so a list would have one worker.
    """
    flags = GivenFlags(given)
    if flags.values(_PARTITION_SIZE) or flags.values(_PARTITIONS):
        return list(given)
    return [*given, f"{_PARTITION_SIZE}=1"]
