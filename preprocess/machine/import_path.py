"""Where a child process of Python finds the modules that this process has found."""

from __future__ import annotations

import os
import sys

import preprocess

_PACKAGES_DIR = os.path.dirname(preprocess.__path__[0])


def import_path() -> str:
    """The value of PYTHONPATH for a child, which may run in another folder."""
    return os.pathsep.join(dict.fromkeys([_PACKAGES_DIR, *map(os.path.abspath, filter(None, sys.path))]))
