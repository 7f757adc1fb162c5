"""Storage retries: decides which faults of storage are transient, and tries again until a time limit.

No other layer retries. The clients below are told not to retry, because retries in several layers would multiply.

A fault in the middle of a long job deserves patience. A service that this process has never reached does not: most
often the machine has no network, and a person waits. So the first contact has a limit of its own.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import logging
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from configs.network_faults import NO_NETWORK, network_fault

_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
# http.client: a dropped connection (RemoteDisconnected is a ConnectionError), a truncated body, an invalid answer.
_TRANSIENT_TYPES = (ConnectionError, TimeoutError, ssl.SSLError, http.client.IncompleteRead, http.client.BadStatusLine)
# Exceptions of clients are recognized by package and name, so that no client has to be imported for that.
_TRANSIENT_NAMES = frozenset(
    {
        ("requests", "ConnectionError"),
        ("requests", "ChunkedEncodingError"),
        ("requests", "Timeout"),
        ("urllib3", "ProtocolError"),
        ("urllib3", "TimeoutError"),
        ("urllib3", "SSLError"),
        ("urllib3", "DecodeError"),
        ("google", "DataCorruption"),  # The checksum of a download or an upload does not match.
        ("botocore", "ConnectionError"),
        ("botocore", "HTTPClientError"),
        ("botocore", "IncompleteReadError"),
        ("botocore", "FlexibleChecksumError"),
        ("azure", "ServiceRequestError"),
        ("azure", "ServiceResponseError"),
    }
)
# No connection could be made, so nothing is known of the service itself.
_NO_CONNECTION_TYPES = (socket.gaierror, ConnectionRefusedError)
_NO_CONNECTION_NUMBERS = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ETIMEDOUT})
_NO_CONNECTION_NAMES = frozenset(
    {
        ("requests", "ProxyError"),
        ("requests", "ConnectTimeout"),
        ("urllib3", "NewConnectionError"),  # NameResolutionError is one
        ("urllib3", "ConnectTimeoutError"),
        ("urllib3", "ProxyError"),
        ("botocore", "EndpointConnectionError"),
        ("botocore", "ConnectTimeoutError"),
        ("botocore", "ProxyConnectionError"),
    }
)
# How long a service is tried that this process has never reached.
_FIRST_CONTACT_SEC = 5.0
# The services that this process has reached: the schemes of their URIs.
_reached: set[str] = set()


class RetriesExhausted(OSError):  # noqa: N818 (the name says what happened)
    """A transient fault did not end within the time limit. `__cause__` is the last exception."""


class NotReached(RetriesExhausted):
    """A service that this process never reached cannot be reached. The message says that, and what to look at."""


def _draw() -> float:
    # `random.random` is pickled with its state, so all workers would draw the same waits.
    return random.random()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long and how often an operation is tried again after a transient fault.

    The wait before try n + 1 is drawn uniformly from 0 to min(max_wait_sec, first_wait_sec * 2^(n-1)), so that many
    workers that failed together do not try again at the same moment.

    Attributes:
      limit_sec: no try begins later than this after the first one; with 0 there is only one try.
      first_wait_sec: the longest first wait.
      max_wait_sec: the longest wait.
      clock: seconds that only grow.
      sleep: waits for seconds.
      random: a number from 0 to 1.
    """

    limit_sec: float = 120.0
    first_wait_sec: float = 0.2
    max_wait_sec: float = 16.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = _draw

    def wait_sec(self, tries: int) -> float:
        """How long to wait after `tries` tries (at least 1), in seconds."""
        # The exponent is bounded, because 2.0**1024 overflows.
        return self.random() * min(self.max_wait_sec, self.first_wait_sec * 2.0 ** min(tries - 1, 60))


def _wrapped(error: object) -> Iterator[object]:
    """An error and the errors that it wraps, outermost first. An HTTP status may stand for an error."""
    yield error
    details = getattr(error, "exception_details", None)  # BeamIOError: an error or a status by path.
    inner = next(iter(details.values())) if isinstance(details, dict) and details else None
    # `cause`: google.api_core's RetryError; `reason`: urllib3's MaxRetryError; first argument: requests, google.auth.
    arguments = getattr(error, "args", ())
    keywords = getattr(error, "kwargs", None)  # botocore: the error below
    below = keywords.get("error") if isinstance(keywords, dict) else None
    for candidate in (inner, getattr(error, "cause", None), getattr(error, "reason", None), below, *arguments[:1]):
        if isinstance(candidate, BaseException) or (candidate is inner and isinstance(candidate, int)):
            yield from _wrapped(candidate)
            return


def _status(error: object) -> int | None:
    """The HTTP status that an error carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) and status >= 400 else None
    candidates = (error, getattr(error, "code", None), getattr(error, "status_code", None))
    for status in (*candidates, getattr(response, "status_code", None)):
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _names(error: object) -> set[tuple[str, str]]:
    """The (package, name) of an error's classes."""
    return {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}


def is_transient(error: Exception) -> bool:
    """Whether the same operation may succeed later, for example after a busy server or a dropped connection."""
    chain = list(_wrapped(error))
    # A certificate that cannot be verified is a wrong setting, although it looks like a failed connection.
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return False
    for one in chain:
        status = _status(one)
        if status is not None:
            return status in _TRANSIENT_STATUSES
        if isinstance(one, _TRANSIENT_TYPES) or getattr(one, "retryable", None) is True:  # `retryable`: google.auth
            return True
        if _names(one) & _TRANSIENT_NAMES:
            return True
    return False


def _is_without_connection(error: Exception) -> bool:
    """Whether no connection to a service could be made."""
    return any(
        isinstance(one, _NO_CONNECTION_TYPES)
        or (isinstance(one, OSError) and one.errno in _NO_CONNECTION_NUMBERS)
        or bool(_names(one) & _NO_CONNECTION_NAMES)
        for one in _wrapped(error)
    )


def _not_reached(error: Exception, tried: str) -> NotReached:
    # botocore's own message names the host, and only the error below says why.
    fault = (
        network_fault(" ".join(str(one) for one in _wrapped(error)))
        or f"cannot reach the service ({first_line(error)})"
    )
    # A machine that refuses was found, so there is a network.
    advice = "Check its address and the network" if "refuses connections" in fault else NO_NETWORK
    return NotReached(f"{fault}, {tried}. {advice}, or set https_proxy if there is a proxy")


def first_line(error: object) -> str:
    """The message of an error in one line, which is never empty."""
    if isinstance(error, int):
        return f"HTTP {error}"
    text = str(error).strip() or type(error).__name__
    # If a download is refused, the client's message contains the whole JSON answer of the service.
    message = re.search(r'"message":\s*"([^"]*)"', text)
    status = _status(error)
    return f"HTTP {status}: {message[1]}" if status and message else text.splitlines()[0]


def call(function: Callable[[], _Result], policy: RetryPolicy, *, service: str | None = None) -> _Result:
    """Calls a function until it raises no transient fault.

    Args:
      function: the function. A second call must do no harm if the outcome of the first call is not known.
      policy: how long and how often to try.
      service: what the function asks, such as "gs". If this process has never reached it and cannot connect to it, the
        tries end after some seconds. None if that is not known.

    Raises:
      NotReached: no connection to a service can be made that this process has never reached.
      RetriesExhausted: the next try would begin after the limit.
      Exception: a permanent fault, as the function raised it.
    """
    started = policy.clock()
    tries = 0
    while True:
        tries += 1
        try:
            result = function()
        except Exception as error:
            is_first = service is not None and service not in _reached and _is_without_connection(error)
            if service is not None and not is_first and not isinstance(error, OSError):
                _reached.add(service)
            # Of a name that is not found, only some clients make a fault that is known to be transient.
            if not is_first and not is_transient(error):
                raise
            wait_sec = policy.wait_sec(tries)
            elapsed_sec = policy.clock() - started
            if elapsed_sec + wait_sec >= (min(policy.limit_sec, _FIRST_CONTACT_SEC) if is_first else policy.limit_sec):
                number = "once" if tries == 1 else f"{tries} times in {elapsed_sec:.0f} s"
                if is_first:
                    raise _not_reached(error, f"tried {number}") from error
                raise RetriesExhausted(f"{first_line(error)} (tried {number})") from error
            _LOGGER.info("Trying again in %.1f s: %s", wait_sec, first_line(error))
        else:
            if service is not None:
                _reached.add(service)
            return result
        policy.sleep(wait_sec)


def as_os_error(error: Exception, path: str) -> OSError:
    """Converts an exception of a storage client into an OSError with a message of one line that names the path.

    Cloud clients raise exceptions of their own types. They are recognized by HTTP status and by name, so that no client
    has to be imported.
    """
    if isinstance(error, RetriesExhausted):
        return type(error)(f"{path}: {error}")
    chain = list(_wrapped(error))
    cause = chain[-1]
    message = first_line(cause)
    statuses = {_status(one) for one in chain}
    if isinstance(cause, FileNotFoundError) or 404 in statuses or type(cause).__name__ == "NotFound":
        if "bucket does not exist" in str(cause):
            return FileNotFoundError(f"No such bucket: {path}")
        return FileNotFoundError(f"No such object: {path}")
    if ("google", "GoogleAuthError") in _names(cause):
        message += " (for credentials: gcloud auth application-default login)"
        return PermissionError(f"No permission for {path}: {message}")
    if isinstance(cause, PermissionError) or statuses & {401, 403}:
        return PermissionError(f"No permission for {path}: {message}")
    if isinstance(cause, OSError) and not hasattr(cause, "exception_details"):
        # An error with a number has its message and its path in fields. Other errors may not name the path.
        return cause if cause.errno in errno.errorcode else OSError(f"{path}: {message}")
    return OSError(f"{path}: {message}")
