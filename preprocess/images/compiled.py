"""Finds the compiled loops over pixels, `_pixels.c`, if this installation has them.

They give the same bits as Pillow and NumPy, so nothing but time depends on them. They are not used if they were
compiled from another source than the one that lies beside them, as in a checkout after an edit without `make`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pathlib
from typing import Any


def compiled_loops() -> Any | None:
    """The module `_pixels`; None if it cannot be used, see `why_missing`."""
    return _find()[0]


def why_missing() -> str:
    """Why `compiled_loops` gives None; the empty text if it gives the module."""
    return _find()[1]


@functools.cache
def _find() -> tuple[Any | None, str]:
    try:
        loops = importlib.import_module("preprocess.images._pixels")
    except ModuleNotFoundError:
        return None, "not compiled when the project was installed: no C compiler?"
    except ImportError as error:
        return None, f"the compiled file does not load: {error}"
    source = pathlib.Path(__file__).with_name("_pixels.c")
    if source.exists() and hashlib.sha256(source.read_bytes()).hexdigest() != loops.SOURCE_DIGEST:
        return None, "compiled from another version of _pixels.c: make setup compiles it again"
    return loops, ""
