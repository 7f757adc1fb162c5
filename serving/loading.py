"""Answers while the server loads: it is alive (`/healthz`) and not ready (503 for all else).

An index of a million photos takes minutes to make. Without an answer, whoever watches the server would take it for dead
and start it again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.metrics import Metrics
from serving.request_log import RequestLog, note

# When a client may ask again.
_RETRY_SEC = 5


@contextlib.contextmanager
def answering(listener: socket.socket, server_of: Callable[[Any], Any]) -> Iterator[None]:
    """Within this context, a thread answers on a socket that is bound. Connections that come at its end are kept.

    Args:
      listener: the socket; it listens afterwards.
      server_of: makes a server of uvicorn from an application.
    """
    server = server_of(_app())
    # uvicorn closes the socket that it is given; another descriptor of the same socket goes on listening.
    copy = listener.dup()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [copy]}, name="loading", daemon=True)
    thread.start()
    try:
        with _ended_by_sigterm():
            yield
    finally:
        server.should_exit = True
        thread.join()
        copy.close()


def _app() -> Any:
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    app = Starlette(
        routes=[
            Route("/healthz", _alive, methods=["GET"]),
            Route("/{path:path}", _not_ready, methods=methods),
        ]
    )
    app.router.redirect_slashes = False
    return RequestLog(app, Metrics())


async def _alive(request: Request) -> Response:
    note(request, "healthz")
    return JSONResponse({"status": "ok"})


async def _not_ready(request: Request) -> Response:
    note(request, "loading")
    error = {"error": "The server loads. Try again in a while.", "reason": "loading"}
    return JSONResponse(error, status_code=503, headers={"Retry-After": str(_RETRY_SEC), "Connection": "close"})


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what is loaded as Ctrl-C does, so that no half index stays on the disk."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("The server was not ready yet.")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
