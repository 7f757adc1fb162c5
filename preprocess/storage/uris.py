"""URIs and local paths: which is which, and where a relative one leads."""

from __future__ import annotations

import posixpath
import re

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def has_scheme(uri: str) -> bool:
    """True for `gs://bucket/name` and its like; False for local paths."""
    return _SCHEME.match(uri) is not None


def resolve_uri(uri: str, list_path: str) -> str:
    """The location of an image: as it stands if absolute, else relative to the folder of the list."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    if uri.startswith("/") or has_scheme(uri):
        return uri
    return posixpath.join(posixpath.dirname(list_path), uri)
