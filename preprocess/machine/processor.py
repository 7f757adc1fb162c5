"""What the processor of this machine is, and which arithmetic it has."""

from __future__ import annotations

_CPU_INFO = "/proc/cpuinfo"
# Any of them says that matrix products in bfloat16 are faster than in float32: on Intel and AMD, and on Arm.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def _cpu_info(field: str) -> str:
    try:
        with open(_CPU_INFO, encoding="utf-8") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip().lower() == field:
                    return value.strip()
    except OSError:
        pass
    return ""


def processor_name() -> str:
    """Its name, for people; empty if the kernel does not say it."""
    return _cpu_info("model name")


def processor_has_bfloat16() -> bool:
    """Whether it computes in bfloat16; False if the kernel does not say it."""
    return bool(set((_cpu_info("flags") or _cpu_info("features")).split()) & _BFLOAT16_FLAGS)
