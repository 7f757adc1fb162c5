"""Imports OpenVINO, which is optional, without its telemetry.

OpenVINO reports its use to an analytics service unless the user has opted out in a file; `import openvino` alone sends
an event. It uses the package `openvino_telemetry` for that. If that cannot be imported, it reports nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any, cast

from configs.errors import InputError
from configs.install_hint import install_hint


def has_openvino() -> bool:
    """True if OpenVINO is installed; imports nothing."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry.

    Raises:
      InputError: it is not installed.
    """
    _block_telemetry()
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            f"engine: OpenVINO cannot be imported ({error}). {install_hint('openvino')} Or pass --engine tensorflow."
        ) from error
    return openvino


def _block_telemetry() -> None:
    # With None, `import openvino_telemetry` raises ModuleNotFoundError. OpenVINO then uses a silent stand-in.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast(Any, None)
