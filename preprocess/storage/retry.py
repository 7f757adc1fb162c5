"""Storage retries: decides which faults of storage are transient, and tries again until a time limit.

No other layer retries. The clients below are told not to retry, because retries in several layers would multiply.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import logging
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

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


class RetriesExhausted(OSError):  # noqa: N818 (the name says what happened)
    """A transient fault did not end within the time limit. `__cause__` is the last exception."""


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


def first_line(error: object) -> str:
    """The message of an error in one line, which is never empty."""
    if isinstance(error, int):
        return f"HTTP {error}"
    text = str(error).strip() or type(error).__name__
    # If a download is refused, the client's message contains the whole JSON answer of the service.
    message = re.search(r'"message":\s*"([^"]*)"', text)
    status = _status(error)
    return f"HTTP {status}: {message[1]}" if status and message else text.splitlines()[0]


def call(function: Callable[[], _Result], policy: RetryPolicy) -> _Result:
    """Calls a function until it raises no transient fault.

    Args:
      function: the function. A second call must do no harm if the outcome of the first call is not known.
      policy: how long and how often to try.

    Raises:
      RetriesExhausted: the next try would begin after the limit.
      Exception: a permanent fault, as the function raised it.
    """
    started = policy.clock()
    tries = 0
    while True:
        tries += 1
        try:
            return function()
        except Exception as error:
            if not is_transient(error):
                raise
            wait_sec = policy.wait_sec(tries)
            elapsed_sec = policy.clock() - started
            if elapsed_sec + wait_sec >= policy.limit_sec:
                number = "once" if tries == 1 else f"{tries} times in {elapsed_sec:.0f} s"
                raise RetriesExhausted(f"{first_line(error)} (tried {number})") from error
            _LOGGER.info("Trying again in %.1f s: %s", wait_sec, first_line(error))
        policy.sleep(wait_sec)


def as_os_error(error: Exception, path: str) -> OSError:
    """Converts an exception of a storage client into an OSError with a message of one line that names the path.

    Cloud clients raise exceptions of their own types. They are recognized by HTTP status and by name, so that no client
    has to be imported.
    """
    if isinstance(error, RetriesExhausted):
        return RetriesExhausted(f"{path}: {error}")
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
