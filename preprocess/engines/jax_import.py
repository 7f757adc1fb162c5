"""Imports JAX, which is optional, and finds the GPU that it can use."""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType
from typing import Any

from configs.errors import InputError
from configs.install_hint import install_hint

# NVIDIA's driver, its Windows Subsystem for Linux counterpart, and AMD's.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def has_jax() -> bool:
    """True if JAX is installed; imports nothing."""
    return importlib.util.find_spec("jax") is not None


def sees_gpu_driver() -> bool:
    """True if this machine has the driver of a GPU; imports nothing."""
    return any(os.path.exists(path) for path in _GPU_FILES)


def import_jax() -> ModuleType:
    """Imports JAX, so that it takes the memory of a GPU as it needs it. Takes a second or two.

    Raises:
      InputError: it is not installed.
    """
    # By itself it takes three quarters of the memory, which several processes may share.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # TensorFlow, which prepares a network at its first start, would take all of it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        import jax
    except ImportError as error:
        raise InputError(
            f"engine: JAX cannot be imported ({error}). {install_hint('gpu')} Or pass --engine tensorflow."
        ) from error
    return jax


@functools.cache
def find_gpu() -> Any | None:
    """The first GPU that JAX can use, a `jax.Device`; None if there is none. Without a driver it imports nothing."""
    if not sees_gpu_driver() or not has_jax():
        return None
    try:
        return import_jax().devices("gpu")[0]
    except (InputError, RuntimeError):  # JAX for CPUs only, or for another version of the driver.
        return None
