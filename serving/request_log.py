"""Wraps the application: a log line and counters for each request, headers for safety, and errors in one line."""

from __future__ import annotations

import http
import json
import logging
import time
from typing import Any

from starlette.requests import Request

from serving.metrics import Metrics

_LOGGER = logging.getLogger("serving.requests")
_BUGS = logging.getLogger("serving")
_NOTES = "hugs.notes"
# A head, the request line with its headers, is refused beyond this size. h11 has the same limit, but it looks only at
# heads that arrive in several pieces.
MAX_HEAD_BYTES = 32 * 1024

# Nothing is loaded from other hosts, nothing in the page runs that is not a file of ours, and no page embeds ours.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]


def note(request: Request, route: str | None = None, *, images: int | None = None, served: str | None = None) -> None:
    """Notes for the log what a request is. Nothing of its contents, its path or its sender is logged."""
    notes = request.scope.setdefault(_NOTES, {})
    notes.update({k: v for k, v in (("route", route), ("images", images), ("model", served)) if v is not None})


class RequestLog:
    """An ASGI application around another one.

    Args:
      app: the application.
      metrics: counts the requests.
    """

    def __init__(self, app: Any, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = scope.setdefault(_NOTES, {})
        started = time.monotonic()
        status = 0
        received = 0

        async def counting_receive() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def noting_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            if scope["http_version"] not in ("1.0", "1.1"):
                await _send_error(noting_send, 505)
            elif _head_bytes(scope) > MAX_HEAD_BYTES:
                await _send_error(noting_send, 431)
            else:
                await self._app(scope, counting_receive, noting_send)
        except Exception:
            _BUGS.exception("a request failed through a bug of the server")
            if not status:
                await _send_error(noting_send, 500)
        finally:
            seconds = time.monotonic() - started
            route = notes.get("route", "other")
            self._metrics.request(route, status, seconds)
            _LOGGER.info(
                "%s %s %d %.1f ms %d bytes %d images %s",
                scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "OTHER",
                route,
                status,
                seconds * 1000,
                received,
                notes.get("images", 0),
                notes.get("model", "-"),
            )


def _head_bytes(scope: Any) -> int:
    line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) for name, value in scope["headers"])


async def _send_error(send: Any, status: int) -> None:
    body = json.dumps({"error": http.HTTPStatus(status).phrase}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status != 500:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
