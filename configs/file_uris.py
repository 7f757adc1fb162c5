"""`file://` URIs as local paths."""

from __future__ import annotations

import glob
import os
import re
import urllib.parse
from collections.abc import Callable

# RFC 8089: file:///path, file://localhost/path and file:/path. Without a slash, the rest is a path as it stands.
_SCHEME = re.compile(r"file:(?://localhost(?=/)|//|(?=/))", re.IGNORECASE)


def local_path_of(uri: str, *, is_there: Callable[[str], bool] = os.path.lexists) -> str:
    """The local path of a `file://` URI; any other text unchanged.

    In a URI, `%20` stands for a blank, but many people put the scheme before a plain path. So the path as it stands is
    taken if it is there, and else the decoded one.

    Args:
      uri: the text.
      is_there: whether there is a file or folder of that path.
    """
    if uri[:5].lower() != "file:" or not (scheme := _SCHEME.match(uri)):
        return uri
    path = uri[scheme.end() :]
    if "%" not in path or _is_valid(path, is_there):
        return path
    return urllib.parse.unquote(path, errors="surrogateescape")


def path_argument(text: str) -> str:
    """The path that a word of a command line names, which may be a `file://` URI, a pattern, or not exist yet."""
    return local_path_of(text, is_there=_begins_there)


def _is_valid(path: str, is_there: Callable[[str], bool]) -> bool:
    try:
        return is_there(path)
    except ValueError:  # a NUL byte
        return False


def _begins_there(path: str) -> bool:
    """Whether the first file or folder with a percent sign in a path is there, or another whose name begins so."""
    end = path.find("/", path.index("%"))
    if end >= 0:
        return os.path.lexists(path[:end])
    return os.path.lexists(path) or any(True for _ in glob.iglob(f"{glob.escape(path)}*"))
