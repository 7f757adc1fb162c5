"""Imports OpenVINO and NNCF, which are optional, without their telemetry and their progress bars.

Both report their use to an analytics service unless the user has opted out in a file; `import openvino` alone sends an
event. They use the package `openvino_telemetry` for that. If it cannot be imported, they report nothing.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any, cast

from configs.errors import InputError
from configs.install_hint import install_hint


def has_openvino() -> bool:
    """True if OpenVINO is installed; imports nothing."""
    return importlib.util.find_spec("openvino") is not None


def has_nncf() -> bool:
    """True if NNCF, which makes int8 networks, is installed; imports nothing."""
    return importlib.util.find_spec("nncf") is not None


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


def import_nncf() -> ModuleType:
    """Imports NNCF, which makes int8 networks, without its telemetry and its messages.

    Raises:
      InputError: it is not installed.
    """
    _block_telemetry()
    try:
        import nncf
    except ImportError as error:
        raise InputError(
            f"precision: int8 needs NNCF, which cannot be imported ({error}). "
            f"{install_hint('openvino')} Or pass --precision bfloat16."
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _block_telemetry() -> None:
    # With None, `import openvino_telemetry` raises ModuleNotFoundError. Both packages then use a silent stand-in.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast(Any, None)
