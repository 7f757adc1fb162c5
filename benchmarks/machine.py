"""The machine on which a benchmark runs, as its results describe it: what decides its speed, and no name of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from preprocess.machine.cores import available_cores

_PACKAGES = ("apache-beam", "tensorflow", "keras", "openvino", "pillow", "numpy", "scikit-learn")
_NUMBER_FORMATS = (
    "amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "sve", "asimd",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Processor, cores and memory that this process may use, arithmetic of the processor, and versions."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    model = value.strip()
                elif key.strip() in ("flags", "Features"):
                    flags.update(value.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "processor": model,
        "cores": available_cores(),
        "arithmetic": [name for name in _NUMBER_FORMATS if name in flags],
        "memory_gb": round(memory, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def describe(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    arithmetic = ", ".join(facts["arithmetic"]) or "unknown arithmetic"
    return f"{facts['processor']}, {facts['cores']} cores ({arithmetic}), {facts['memory_gb']:g} GB"


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two machines are of one kind, so that rates may be compared, and not only ratios within one run."""
    return all(one[key] == other[key] for key in ("processor", "cores", "arithmetic"))
