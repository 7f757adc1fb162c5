"""Web hosts on loopback that answer as planned: `with WebHost() as host: host.pages["/a.jpg"] = Page(photo)`."""

from __future__ import annotations

import collections
import dataclasses
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """One answer.

    Attributes:
      body: what is sent.
      status: of the answer.
      headers: beside Content-Length, which they may replace.
      delay_sec: before the answer.
      byte_every_sec: the body is sent byte by byte, one each time; 0 for at once.
      cut: the connection is closed after half of the body.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    delay_sec: float = 0.0
    byte_every_sec: float = 0.0
    cut: bool = False


class WebHost:
    """A server of pages; those that it does not have are 404. A list of pages is answered one after the other.

    With `certificate`, the path of a file of a key and its certificate, it is one of https.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, *, certificate: str | None = None):
        self.pages: dict[str, Page | list[Page] | Callable[[], Page]] = {}
        self.requests: list[str] = []
        self.agents: collections.Counter[str | None] = collections.Counter()
        self.running = self.most_at_once = 0
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer((address, port), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.name = f"{address}:{self.port}"
        self.url = f"{'https' if certificate else 'http'}://{self.name}"

    def __enter__(self) -> WebHost:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._server.shutdown()

    def stop(self) -> None:
        """Takes no more connections."""
        self._server.socket.close()

    def _page(self, path: str) -> Page:
        page = self.pages.get(path, Page(status=404))
        if isinstance(page, list):
            return page.pop(0) if len(page) > 1 else page[0]
        return page() if callable(page) else page

    def _handler(host) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                with host._lock:
                    host.requests.append(self.path)
                    host.agents[self.headers["User-Agent"]] += 1
                    host.running += 1
                    host.most_at_once = max(host.most_at_once, host.running)
                    page = host._page(self.path)
                time.sleep(page.delay_sec)
                # Not after the answer: with it, the client may send its next request at once.
                with host._lock:
                    host.running -= 1
                try:
                    self._answer(page)
                except OSError:  # The client left.
                    self.close_connection = True

            def _answer(self, page: Page) -> None:
                self.send_response_only(page.status)
                for name, value in {"Content-Length": str(len(page.body)), **page.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if page.cut:
                    self.wfile.write(page.body[: len(page.body) // 2])
                    self.close_connection = True
                    return
                if not page.byte_every_sec:
                    self.wfile.write(page.body)
                    return
                for number in range(len(page.body)):
                    self.wfile.write(page.body[number : number + 1])
                    time.sleep(page.byte_every_sec)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
