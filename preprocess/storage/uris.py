"""Tells URIs from local paths and web addresses from others, and resolves relative locations of images."""

from __future__ import annotations

import posixpath
import re

from configs.file_uris import local_path_of

# The buckets that our own storage reads and writes, with locks.
BUCKETS = ("gs://", "s3://")
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def has_scheme(uri: str) -> bool:
    """True for URIs such as `gs://bucket/name`; False for local paths."""
    return _SCHEME.match(uri) is not None


def is_in_bucket(uri: str) -> bool:
    """True for `gs://` and `s3://`."""
    return uri.startswith(BUCKETS)


def resolve_uri(uri: str, list_path: str) -> str:
    """The location of an image: an absolute one unchanged, a relative one below the folder of the list.

    The location of a `file://` URI is a local path.
    """
    if (path := local_path_of(uri)) is not uri:
        return path
    if uri.startswith("/") or has_scheme(uri):
        return uri
    return posixpath.join(posixpath.dirname(list_path), uri)


def is_web(location: str) -> bool:
    """Whether a location is a web address."""
    return location[:4].lower() == "http" and location[:8].lower().startswith(("http://", "https://"))


def host_of(location: str) -> str | None:
    """The host of a web address with its port, if it names one; None for other locations."""
    if not is_web(location):
        return None
    authority = location.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
    return authority.rpartition("@")[2].lower()


def shown(url: str) -> str:
    """A location for messages: of a web address without a password, and without a signature after the question mark."""
    if not is_web(url):
        return url
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = place.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
