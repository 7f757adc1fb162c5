"""Looks whether a folder can be written into, before the work whose result it is to hold."""

from __future__ import annotations

import os

from configs.errors import InputError


def require_writable(folder: str, *, flag: str) -> None:
    """Refuses a local folder that cannot be made or written into. It need not exist.

    Args:
      folder: its path; empty for the current one.
      flag: the option that named it, for the message.

    Raises:
      InputError: it is a file or would lie in one, or this user may not write there.
    """
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise InputError(f"--{flag}: {place} is a file, so {folder} cannot be a folder. Name another folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--{flag}: this user may not write into {place}. Name another folder.")
