"""Tells URIs from local paths, and resolves relative locations of images."""

from __future__ import annotations

import posixpath
import re

from configs.file_uris import local_path_of

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def has_scheme(uri: str) -> bool:
    """True for URIs such as `gs://bucket/name`; False for local paths."""
    return _SCHEME.match(uri) is not None


def resolve_uri(uri: str, list_path: str) -> str:
    """The location of an image: an absolute one unchanged, a relative one below the folder of the list.

    The location of a `file://` URI is a local path.
    """
    if (path := local_path_of(uri)) is not uri:
        return path
    if uri.startswith("/") or has_scheme(uri):
        return uri
    return posixpath.join(posixpath.dirname(list_path), uri)
