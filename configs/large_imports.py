"""Imports of large libraries without Python's garbage collector, which finds nothing then and takes a quarter."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Within this context the interpreter does not look for garbage: an import makes many objects, and all stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
