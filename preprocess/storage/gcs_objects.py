"""Objects of Google Cloud Storage by the google-cloud-storage client itself: whole, checked, and tried again.

Beam's `gs://` filesystem asks for an object's metadata, then for ranges of it that nobody checks, and has retries of
its own. Here a read is one request whose checksum is verified, and `retry` alone decides about trying again.
"""

from __future__ import annotations

import errno
import io
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from preprocess.storage.base import TooLarge
from preprocess.storage.retry import RetryPolicy, as_os_error, call

if TYPE_CHECKING:
    from google.cloud import storage

# As many as the threads that read images. The pool of `requests` holds 10 and drops what is beyond, and a new
# connection costs about three round trips.
NUM_CONNECTIONS = 32
DEFAULT_TIMEOUT_SEC = 30.0
CONNECT_TIMEOUT_SEC = 10.0
# Content to be sent is held in memory up to here, then on disk. A shard of 1024 records is 8.5 MB.
SPOOL_BYTES = 32 * 1024 * 1024
_EMULATOR = "STORAGE_EMULATOR_HOST"
_URI = re.compile(r"gs://([^/]+)/(.*)", re.DOTALL)

_clients: dict[tuple[str, Callable[[], storage.Client]], storage.Client] = {}
_clients_lock = threading.Lock()


def make_client() -> storage.Client:
    """A client with the credentials of this machine; without any, one that reads what is public."""
    import google.auth.exceptions
    from google.cloud import storage

    try:
        # Objects belong to no project, and without None the client raises where nothing names one: on a machine that
        # has a user's credentials and no `gcloud config set project`.
        return storage.Client(project=None)
    except google.auth.exceptions.DefaultCredentialsError:
        return storage.Client.create_anonymous_client()


def client_of_process(make: Callable[[], storage.Client] = make_client) -> storage.Client:
    """The one client of some credentials that all threads of this process share.

    Args:
      make: makes it on the first call. Those that give other credentials must not be equal: who comes first decides
        for nobody else. With STORAGE_EMULATOR_HOST set, a client without credentials is made instead.
    """
    endpoint = os.environ.get(_EMULATOR, "")
    key = (endpoint, make_client if endpoint else make)
    with _clients_lock:
        if key not in _clients:
            # Else the client (3.17) asks for each bucket's metadata in a thread of its own, for traces nobody takes.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            import requests.adapters
            from google.cloud import storage

            # An emulator asks for no credentials, and without any on the machine the search for them takes 21 to 28 s.
            client = storage.Client.create_anonymous_client() if endpoint else make()
            adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=NUM_CONNECTIONS)
            for scheme in ("http://", "https://"):
                client._http.mount(scheme, adapter)
            _clients[key] = client
        return _clients[key]


def split_uri(uri: str) -> tuple[str, str]:
    """`gs://bucket/name` to (bucket, name). Raises OSError if it is none."""
    match = _URI.fullmatch(uri)
    if not match:
        raise OSError(errno.EINVAL, "must be gs://bucket/object", uri)
    return match[1], match[2]


class _Bounded(io.RawIOBase):
    """Passes on what is written, up to a limit."""

    def __init__(self, target: BinaryIO, uri: str, max_bytes: int):
        self._target = target
        self._uri = uri
        self._max_bytes = max_bytes
        self._num_bytes = 0

    def write(self, data: Any) -> int:
        self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            raise TooLarge(self._uri, self._max_bytes)
        return self._target.write(data)


def download(
    uri: str,
    target: BinaryIO,
    *,
    max_bytes: int | None = None,
    timeout_sec: float = DEFAULT_TIMEOUT_SEC,
    make: Callable[[], storage.Client] = make_client,
) -> None:
    """Gets one object by one request, once, into the start of `target`.

    The bytes are checked against the checksum in the answer (crc32c, or md5 without its C library). An object stored
    with `Content-Encoding: gzip` is decompressed, as browsers do.

    Raises:
      TooLarge: there are more than `max_bytes` bytes; no more than a few KB beyond them are received.
      Exception: what the client raises.
    """
    bucket, name = split_uri(uri)
    target.seek(0)
    target.truncate()
    stream = target if max_bytes is None else cast(BinaryIO, _Bounded(target, uri, max_bytes))
    blob = client_of_process(make).bucket(bucket).blob(name)
    blob.download_to_file(stream, timeout=(CONNECT_TIMEOUT_SEC, timeout_sec), retry=None)


def read_object(
    uri: str,
    *,
    max_bytes: int | None = None,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    timeout_sec: float = DEFAULT_TIMEOUT_SEC,
    make: Callable[[], storage.Client] = make_client,
) -> bytes:
    """Reads one object: one request, whose checksum is verified.

    Args:
      uri: gs://bucket/name.
      max_bytes: more bytes are refused.
      retry: how long to go on after transient faults; damage and short answers are such.
      timeout_sec: a connection without data for this long is given up, and counts as a transient fault.
      make: makes the client, where the process has none yet.

    Raises:
      FileNotFoundError: there is no such object.
      PermissionError: it may not be read.
      TooLarge: it has more than `max_bytes` bytes.
      OSError: anything else.
    """

    def read_once() -> bytes:
        buffer = io.BytesIO()
        download(uri, buffer, max_bytes=max_bytes, timeout_sec=timeout_sec, make=make)
        return buffer.getvalue()

    try:
        return call(read_once, retry)
    except TooLarge:
        raise
    except Exception as error:
        raise as_os_error(error, uri) from error


class DamagedUpload(ConnectionError):  # noqa: N818 (what it says is what happened)
    """The service received other bytes than were sent."""


def upload(
    uri: str,
    stream: BinaryIO,
    size_bytes: int,
    *,
    only_new: bool = False,
    timeout_sec: float = DEFAULT_TIMEOUT_SEC,
    make: Callable[[], storage.Client] = make_client,
) -> None:
    """Sends one object, once, from the start of `stream`; its checksum is verified.

    Raises:
      FileExistsError: there is an object of this name, with `only_new`; the service lets one of several through.
      DamagedUpload: the service says so.
      Exception: what the client raises.
    """
    bucket, name = split_uri(uri)
    try:
        client_of_process(make).bucket(bucket).blob(name).upload_from_file(
            stream,
            rewind=True,
            size=size_bytes,
            content_type="application/octet-stream",
            checksum="crc32c",
            if_generation_match=0 if only_new else None,
            timeout=(CONNECT_TIMEOUT_SEC, timeout_sec),
            retry=None,
        )
    except Exception as error:
        if only_new and getattr(error, "code", None) == 412:
            raise FileExistsError(errno.EEXIST, "there is such an object", uri) from error
        # The service compares the checksums of small uploads itself, and answers with 400 as for a wrong request.
        if getattr(error, "code", None) == 400 and "match calculated" in str(error):
            raise DamagedUpload(f"The upload of {uri} was damaged on its way") from error
        raise
