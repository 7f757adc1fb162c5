"""Splits lists of paths on the command line: a flag may be repeated, and its paths separated by commas."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from configs.file_uris import path_argument
from preprocess.records.record_set import sidecar_dir
from preprocess.storage.base import LocalStorage

# The number of commas in a name that are looked for.
_MAX_COMMAS = 16


def split_texts(values: Sequence[str]) -> tuple[str, ...]:
    """The texts of a repeated, comma-separated flag, in order, without empty ones."""
    return tuple(text.strip() for value in values for text in value.split(",") if text.strip())


def names_local_files(path: str) -> bool:
    """Whether there is a local file, folder or record set of that name, or a file that matches the glob."""
    path = path_argument(path)
    return os.path.lexists(path) or os.path.isdir(sidecar_dir(path)) or bool(LocalStorage().match(path))


def split_paths(
    values: Sequence[str] | None, *, is_there: Callable[[str], bool] = names_local_files
) -> tuple[str, ...]:
    """The paths of a repeated, comma-separated flag, in order, without empty ones.

    A comma may also belong to a name. Where the text with the comma names something on this machine, it is one path.

    Args:
      values: of the flag.
      is_there: whether a path names something.
    """
    paths: list[str] = []
    for value in values or ():
        pieces = value.split(",")
        while pieces:
            taken = 1
            for count in range(min(len(pieces), 1 + _MAX_COMMAS), 1, -1):
                if is_there(",".join(pieces[:count]).strip()):
                    taken = count
                    break
            paths.append(",".join(pieces[:taken]).strip())
            del pieces[:taken]
    return tuple(filter(None, paths))
