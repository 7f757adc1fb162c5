"""Imports OpenVINO and NNCF, which are optional, without their telemetry and their progress bars.

Both report their use to an analytics service unless the user has opted out in a file (`import openvino` alone sends an
event). They do so through the package `openvino_telemetry` and go without where it cannot be imported.
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


def import_openvino() -> ModuleType:
    """OpenVINO, silent.

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
    """NNCF, silent; it makes int8 networks.

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
    # None makes `import openvino_telemetry` fail with ModuleNotFoundError, for which both have a silent stand-in.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast(Any, None)
