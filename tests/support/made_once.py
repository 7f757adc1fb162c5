"""Work that several processes of pytest need, and that one of them does."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from typing import TypeVar

# The variable of the environment that names a folder of all processes of pytest.
SHARED_FOLDER = "TESTS_SHARED_FOLDER"
_Made = TypeVar("_Made")


def made_once(name: str, make: Callable[[], _Made]) -> _Made:
    """What `make` gives in the first process that asks for it; the others read what it has kept with pickle.

    Args:
      name: of a file; the same for the same work.
      make: does the work.
    """
    folder = os.environ.get(SHARED_FOLDER)
    if folder is None:
        return make()
    path = os.path.join(folder, name)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Whoever comes second waits here, and has less to do than the first.
        if not os.path.exists(path):
            with open(f"{path}.part", "wb") as stream:
                pickle.dump(make(), stream)
            os.rename(stream.name, path)
    with open(path, "rb") as stream:
        return pickle.load(stream)
