"""Refuses requests whose `Host` header names another host than this server is known by.

A web page of a stranger can let its own name point to 127.0.0.1 (DNS rebinding). Then the browser takes the server on
this machine for a part of that page, and the page can read its answers. But such a request still names the stranger's
host. Jupyter and Vite check the header for the same reason.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import re
import socket
from collections.abc import Collection
from typing import Any

# The name, or the address; IPv6 in brackets. The port does not matter: a page of a stranger cannot choose it freely,
# and a tunnel or a container may map another one.
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@?#\s]+)(?::[0-9]*)?")
_STATUS = 421  # Misdirected Request
_BODY = json.dumps(
    {
        "error": "This server does not answer to the host that the request names. Ask it at localhost, or start it "
        "with --allowed_hosts and the name.",
        "reason": "unknown_host",
    }
).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


def host_name(header: str) -> str | None:
    """The host of a `Host` header: a name in lower case without its last dot, or an address; None if it is neither."""
    match = _HOST.fullmatch(header.strip())
    return match["host"].strip("[]").removesuffix(".").lower() if match else None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else: localhost, a name below it, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: no name service is asked for these.
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def listens_on_loopback(host: str) -> bool:
    """Whether the address of `--host` is one of loopback; a name is looked up."""
    if is_loopback(host):
        return True
    try:
        return is_loopback(str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]))
    except (OSError, UnicodeError):
        return False


class AllowedHosts:
    """Wraps an ASGI application: it gets only requests that name a loopback host or an allowed one.

    The answers to others are 421 with one line of JSON.

    Args:
      app: the application.
      allowed: further names and addresses, as `host_name` gives them.
    """

    def __init__(self, app: Any, allowed: Collection[str]):
        self._app = app
        self._allowed = frozenset(allowed)
        # A server is asked by few names, most often by one.
        self._is_allowed = functools.lru_cache(maxsize=256)(self._look_at)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "http" and not self._may_pass(scope["headers"]):
            await send({"type": "http.response.start", "status": _STATUS, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
            return
        await self._app(scope, receive, send)

    def _may_pass(self, headers: Any) -> bool:
        hosts = [value for name, value in headers if name == b"host"]
        # HTTP/1.0 needs no such header, and no browser leaves it out.
        return not hosts or (len(hosts) == 1 and self._is_allowed(hosts[0]))

    def _look_at(self, header: bytes) -> bool:
        host = host_name(header.decode("latin-1"))
        return host is not None and (is_loopback(host) or host in self._allowed)
