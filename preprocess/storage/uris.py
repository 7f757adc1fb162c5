"""Tells URIs from local paths and web addresses from others, and resolves relative locations of images."""

from __future__ import annotations

import posixpath
import re

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def has_scheme(uri: str) -> bool:
    """True for URIs such as `gs://bucket/name`; False for local paths."""
    return _SCHEME.match(uri) is not None


def resolve_uri(uri: str, list_path: str) -> str:
    """The location of an image: an absolute one unchanged, a relative one below the folder of the list."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
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
    """A web address for messages, without what may be secret: a password, or a signature after the question mark."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = place.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
