"""Requests to web hosts, `http://` and `https://`: one image a request, with limits on its time and size.

A list is the user's own, so a request goes to whatever host it names. A redirect is not the user's own: a host on the
internet could send this machine to an address of its own network, such as that of a cloud's metadata service. So each
connection of a redirect is checked after it was made and before anything is sent; names may resolve differently each
time, but a connection has one address.
"""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from preprocess.images.web_addresses import is_address, is_link_local, is_public
from preprocess.machine.deadlines import DeadlineWatch
from preprocess.machine.machine_faults import in_one_line, with_causes
from preprocess.storage.base import TooLarge
from preprocess.storage.uris import host_of, shown

SCHEMES = ("http", "https")
CONNECT_TIMEOUT_SEC = 10.0
# How long a host may send nothing.
_SILENCE_SEC = 30.0
_MAX_REDIRECTS = 5
# Hosts to which connections stay open. Each may have as many as the limit for one host.
_OPEN_HOSTS = 32
# A longer body of an answer that is of no use is not read; its connection is closed instead.
_DRAINED_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
_NO_PERMISSION = frozenset({401, 402, 403, 407, 451})
_TRANSIENT = frozenset({408, 425, 500, 502, 504})
_BUSY = frozenset({429, 503})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_current = threading.local()


class WebFault(Exception):  # noqa: N818 (the name says what happened)
    """A request that gave no image.

    Attributes:
      reason: of the failure, if it lasts: one snake_case word.
      message: one line.
      transient: whether the same request may succeed later.
      answered: whether the host answered.
      wait_sec: the seconds for which the host asks to be left alone; None if it does not ask.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        transient: bool = False,
        answered: bool = True,
        wait_sec: float | None = None,
    ):
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.transient = transient
        self.answered = answered
        self.wait_sec = wait_sec


class _AddressRefused(OSError):  # noqa: N818 (the name says what happened)
    """A redirect leads to an address to which it may not lead."""


def _connection_types(refused: Callable[[str], bool] | None) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    """Connections that refuse addresses, and that the deadline of their request can close."""

    class Checked:
        peer: str | None = None

        def _new_conn(self) -> socket.socket:
            host = self.host.strip("[]")  # type: ignore[attr-defined]
            if refused is not None and is_address(host) and refused(host):
                raise _AddressRefused(host)
            sock = super()._new_conn()  # type: ignore[misc]
            self.peer = sock.getpeername()[0]
            if refused is not None and refused(self.peer):
                sock.close()
                raise _AddressRefused(self.peer)
            return sock

        def getresponse(self, *args: Any, **kwargs: Any) -> Any:
            _current.connection = self
            return super().getresponse(*args, **kwargs)  # type: ignore[misc]

    return (
        type("Plain", (Checked, HTTPConnection), {}),
        type("Secure", (Checked, HTTPSConnection), {}),
    )


def _pools(manager: urllib3.PoolManager, refused: Callable[[str], bool] | None) -> urllib3.PoolManager:
    plain, secure = _connection_types(refused)
    manager.pool_classes_by_scheme = {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }
    return manager


class WebClient:
    """Gets images from web hosts. Threads may share it. Proxies of the environment are used, as `curl` uses them.

    Args:
      user_agent: how it introduces itself.
      connections_per_host: the largest number of connections to one host.
    """

    def __init__(self, *, user_agent: str, connections_per_host: int):
        # Accept: hosts that choose a format by it give everybody the same bytes.
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        tls = ssl.create_default_context()
        tls.load_verify_locations(certifi.where())  # A container may have no certificates of its own.
        self._options: dict[str, Any] = {
            "num_pools": _OPEN_HOSTS,
            "maxsize": connections_per_host,
            "block": True,
            "ssl_context": tls,
            "retries": False,
        }
        self._named = _pools(urllib3.PoolManager(**self._options), None)
        self._public = _pools(urllib3.PoolManager(**self._options), lambda address: not is_public(address))
        self._near = _pools(urllib3.PoolManager(**self._options), is_link_local)
        self._proxies: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._watch = DeadlineWatch("web-deadlines")

    def get(self, url: str, *, max_bytes: int | None, deadline_sec: float) -> bytes:
        """The body of the answer to one request, after at most a few redirects.

        Args:
          url: http:// or https://.
          max_bytes: longer bodies are refused; None for any length.
          deadline_sec: for all of it.

        Raises:
          TooLarge: the body is longer.
          WebFault: there is no image to be had there, or not now.
        """
        ends = time.monotonic() + deadline_sec
        found, from_public = self._ask(self._named, url, max_bytes, ends)
        # A host of the user's own network may lead to another one.
        manager = self._public if from_public else self._near
        target = url
        for _ in range(_MAX_REDIRECTS):
            if isinstance(found, bytes):
                return found
            try:
                target = _redirected(target, found)
                found, _ = self._ask(manager, target, max_bytes, ends)
            except WebFault as fault:
                fault.answered = True  # The host that the list names did answer.
                raise
        if isinstance(found, bytes):
            return found
        raise WebFault("read_error", f"{shown(url)}: more than {_MAX_REDIRECTS} redirects")

    def _ask(
        self, manager: urllib3.PoolManager, url: str, max_bytes: int | None, ends: float
    ) -> tuple[bytes | str, bool]:
        """The body of the answer to one request, or where it leads; and whether the host may be on the internet."""
        via, proxy = manager, _proxy_for(url)
        if proxy is not None:
            via = self._through(proxy)
            if manager is not self._named:
                _require_public_name(url)
        with self._answer(via, url, ends) as (response, peer):
            may_be_public = proxy is not None or peer is None or is_public(peer)
            leads_to = response.headers.get("Location") if response.status in _REDIRECTS else None
            return (_body(response, url, max_bytes) if leads_to is None else leads_to), may_be_public

    def can_connect(self, url: str) -> bool:
        """Whether the host of a web address answers anything."""
        parts = urllib.parse.urlsplit(url)
        try:
            with self._answer(self._named, f"{parts.scheme}://{parts.netloc}/", time.monotonic() + CONNECT_TIMEOUT_SEC):
                return True
        except WebFault as fault:
            return fault.answered

    def _through(self, proxy: str) -> urllib3.PoolManager:
        with self._lock:
            if proxy not in self._proxies:
                parts = urllib.parse.urlsplit(proxy)
                login = ":".join(urllib.parse.unquote(part) for part in (parts.username, parts.password) if part)
                headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
                address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
                self._proxies[proxy] = _pools(
                    urllib3.ProxyManager(address, proxy_headers=headers, **self._options), None
                )
            return self._proxies[proxy]

    @contextlib.contextmanager
    def _answer(
        self, via: urllib3.PoolManager, url: str, ends: float
    ) -> Iterator[tuple[urllib3.BaseHTTPResponse, str | None]]:
        """The answer to one request, and the address that gave it. The body is not read yet."""
        left_sec = max(0.1, ends - time.monotonic())
        late = threading.Event()
        _current.connection = None
        holder = _current.__dict__  # of this thread; the watching thread has another one

        def cut_off() -> None:
            late.set()
            sock = getattr(holder.get("connection"), "sock", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        # The limits of urllib3 hold for single steps only; a host may send a byte every few seconds for ever.
        clock = self._watch.start(left_sec, cut_off)
        response, is_whole = None, False
        try:
            response = via.request(
                "GET",
                url,
                headers=self._headers,
                redirect=False,
                preload_content=False,
                pool_timeout=left_sec,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_SEC, left_sec), read=min(_SILENCE_SEC, left_sec)),
            )
            yield response, getattr(holder.get("connection"), "peer", None)
            is_whole = True
            if late.is_set():
                # A connection that was cut off within headers, or in a body without a length, ends like a whole one.
                raise TimeoutError
        except (WebFault, TooLarge):
            raise
        except Exception as error:
            raise _fault(error, url, late=late.is_set(), answered=response is not None) from error
        finally:
            if response is not None:
                _give_back(response, is_whole=is_whole and not late.is_set())
            self._watch.end(clock)
            holder.pop("connection", None)


def _proxy_for(url: str) -> str | None:
    proxies = urllib.request.getproxies()
    if not proxies:
        return None
    parts = urllib.parse.urlsplit(url)
    proxy = proxies.get(parts.scheme.lower()) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None


def _require_public_name(url: str) -> None:
    """Refuses redirects to hosts here, if a proxy makes the connection, so that its address is not seen here."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return  # Only the proxy knows it.
    for address in addresses:
        if not is_public(address):
            raise _refusal(url, address)


def _refusal(url: str, address: str) -> WebFault:
    return WebFault(
        "refused_redirect", f"A redirect to {shown(url)} is not followed: {address} is an address within a network."
    )


def _redirected(url: str, location: str) -> str:
    try:
        target = urllib.parse.urljoin(url, location)
        parts = urllib.parse.urlsplit(target)
        scheme, host, login = parts.scheme, parts.hostname, parts.username
    except ValueError as error:
        raise WebFault("refused_redirect", f"{shown(url)}: a redirect to no address ({error})") from error
    if scheme not in SCHEMES or not host:
        raise WebFault("refused_redirect", f"{shown(url)}: a redirect to {scheme}:// is not followed.")
    return target if login is None else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _body(response: urllib3.BaseHTTPResponse, url: str, max_bytes: int | None) -> bytes:
    status = response.status
    if status != 200:
        message = f"{shown(url)}: HTTP {status}{' ' + response.reason if response.reason else ''}"
        if status in (404, 410):
            raise WebFault("not_found", message)
        if status in _NO_PERMISSION:
            raise WebFault("no_permission", message)
        if status in _BUSY:
            raise WebFault("server_busy", message, transient=True, wait_sec=_retry_after_sec(response))
        if status in _TRANSIENT:
            raise WebFault("server_error", message, transient=True, wait_sec=_retry_after_sec(response))
        raise WebFault("read_error", message)
    length = response.headers.get("Content-Length", "")
    if max_bytes is not None and length.isdecimal() and int(length) > max_bytes:
        raise TooLarge(shown(url), max_bytes)
    pieces, num_bytes = [], 0
    for piece in response.stream(_PIECE_BYTES, decode_content=True):
        pieces.append(piece)
        num_bytes += len(piece)
        if max_bytes is not None and num_bytes > max_bytes:
            raise TooLarge(shown(url), max_bytes)
    return b"".join(pieces)


def _retry_after_sec(response: urllib3.BaseHTTPResponse) -> float | None:
    """The seconds of a header Retry-After: a number, or a date, which is compared with the host's own clock."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _give_back(response: urllib3.BaseHTTPResponse, *, is_whole: bool) -> None:
    """Gives the connection back for the next request, or closes it after a fault, or if much of the answer is left."""
    length = response.headers.get("Content-Length", "")
    with contextlib.suppress(Exception):
        if is_whole and length.isdecimal() and int(length) <= _DRAINED_BYTES:
            response.drain_conn()
        else:
            response.close()
    with contextlib.suppress(Exception):
        response.release_conn()


def _fault(error: Exception, url: str, *, late: bool, answered: bool) -> WebFault:
    """What an exception of urllib3, or of the sockets below it, says of an image."""
    place, host = shown(url), host_of(url)
    causes = list(with_causes(error))
    for cause in causes:
        if isinstance(cause, _AddressRefused):
            return _refusal(url, str(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return WebFault("tls_error", f"{place}: the certificate of {host} is not valid: {cause.verify_message}")
        if isinstance(cause, socket.gaierror):
            unknown = cause.errno == socket.EAI_NONAME
            what = "there is no such host" if unknown else f"its name cannot be looked up ({cause.strerror})"
            return WebFault("unreachable", f"{host}: {what}", transient=not unknown, answered=False)
    if isinstance(error, (urllib3.exceptions.LocationValueError, UnicodeError, ValueError)):
        return WebFault("bad_uri", f"{place} is no web address: {_one_line(error)}")
    if isinstance(error, urllib3.exceptions.DecodeError):
        return WebFault("read_error", f"{place}: the compressed answer is damaged")
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # a timeout for urllib3, by its class
    if late or (
        not refused and any(isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)) for cause in causes)
    ):
        return WebFault("unreachable", f"{place}: no whole answer in time", transient=True, answered=answered)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return WebFault("tls_error", f"{place}: {_one_line(causes[-1])}", transient=True, answered=answered)
    return WebFault("unreachable", f"{place}: {_one_line(causes[-1])}", transient=True, answered=answered)


def _one_line(error: BaseException) -> str:
    return in_one_line(error)[:200]
