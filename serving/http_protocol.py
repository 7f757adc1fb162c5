"""The HTTP protocol of uvicorn with bounds that it lacks, and answers for clients that close their side early."""

from __future__ import annotations

import asyncio
import http
import json
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# How long a head may take to arrive, from its first byte or from the begin of the connection.
HEAD_SEC = 10.0
# After an answer before the end of the body, the rest is read and thrown away for so long. If the connection were
# closed at once, the kernel would reset it, and many clients would not see the answer.
LINGER_SEC = 2.0


class BoundedProtocol(H11Protocol):
    """One connection. `HEAD_SEC` and `LINGER_SEC` are its bounds."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._start_timer(HEAD_SEC)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if not self._waits_for_head:
            if self.conn.our_state is not h11.DONE:  # Otherwise it lingers.
                self._stop_timer()
        elif self._timer is None:
            self._start_timer(HEAD_SEC)

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.our_state is h11.DONE:
            self._start_timer(LINGER_SEC)

    def eof_received(self) -> bool:
        """A client that has sent its whole request and then closes its side still gets its answer."""
        cycle = self.cycle
        waits_for_answer = cycle is not None and not cycle.response_complete and not cycle.more_body
        if waits_for_answer:
            cycle.keep_alive = False
        return waits_for_answer

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP (400), or has too large a head (431). What is being answered is cut off.

        uvicorn calls it where it catches the error of h11, which says the status.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = getattr(sys.exc_info()[1], "error_status_hint", 400)
            body = json.dumps({"error": http.HTTPStatus(status).phrase}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _waits_for_head(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_is_over)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self) -> None:
        self._timer = None
        self.transport.close()
