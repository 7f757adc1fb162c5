"""What lies in folders, to compare what two runs wrote."""

from __future__ import annotations

import pathlib


def files_below(folder: pathlib.Path) -> dict[str, bytes]:
    """The content of each file below a folder, by its path within it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
