"""Reads and writes whole objects of Google Cloud Storage with Google's client, with checksums and storage retries.

Beam's `gs://` filesystem requests an object's metadata, then ranges of it without verifying a checksum, and it has its
own retries. Here a read is one request whose checksum is verified, and only the module `retry` tries it again.
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

# One for each thread that reads images. The default pool of `requests` keeps only 10 connections, and a new connection
# costs about three round trips.
NUM_CONNECTIONS = 32
DEFAULT_TIMEOUT_SEC = 30.0
CONNECT_TIMEOUT_SEC = 10.0
# Content up to this size is kept in memory until it is sent, larger content on disk. A shard of 1024 records is 8.5 MB.
SPOOL_BYTES = 32 * 1024 * 1024
_EMULATOR = "STORAGE_EMULATOR_HOST"
_URI = re.compile(r"gs://([^/]+)/(.*)", re.DOTALL)

_clients: dict[tuple[str, Callable[[], storage.Client]], storage.Client] = {}
_clients_lock = threading.Lock()


def make_client() -> storage.Client:
    """A client with the credentials of this machine; without credentials, a client for public objects."""
    import google.auth.exceptions
    from google.cloud import storage

    try:
        # Objects do not need a project. Without None the client raises if no project is configured, for example on a
        # machine with a user's credentials where nobody ran `gcloud config set project`.
        return storage.Client(project=None)
    except google.auth.exceptions.DefaultCredentialsError:
        return storage.Client.create_anonymous_client()


def client_of_process(make: Callable[[], storage.Client] = make_client) -> storage.Client:
    """The client that all threads of this process share for the same credentials.

    Args:
      make: makes the client on the first call. Makers with different credentials must not compare equal, so that each
        gets its own client. If STORAGE_EMULATOR_HOST is set, a client without credentials is made instead.
    """
    endpoint = os.environ.get(_EMULATOR, "")
    key = (endpoint, make_client if endpoint else make)
    with _clients_lock:
        if key not in _clients:
            # Otherwise the client (3.17) requests each bucket's metadata in a thread, for traces that are not used.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            import requests.adapters
            from google.cloud import storage

            # An emulator needs no credentials, and the client searches 21 to 28 s for them if there are none.
            client = storage.Client.create_anonymous_client() if endpoint else make()
            adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=NUM_CONNECTIONS)
            for scheme in ("http://", "https://"):
                client._http.mount(scheme, adapter)
            _clients[key] = client
        return _clients[key]


def split_uri(uri: str) -> tuple[str, str]:
    """Splits `gs://bucket/name` into (bucket, name). Raises OSError if the URI has another form."""
    match = _URI.fullmatch(uri)
    if not match:
        raise OSError(errno.EINVAL, "must be gs://bucket/object", uri)
    return match[1], match[2]


class _Bounded(io.RawIOBase):
    """A stream that passes on the bytes that are written to it, up to a limit."""

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
    """Downloads one object with one request and without retries, into the start of `target`.

    The bytes are compared with the checksum in the answer (crc32c, or md5 without the C library of crc32c). An object
    stored with `Content-Encoding: gzip` is decompressed, as in browsers.

    Raises:
      TooLarge: there are more than `max_bytes` bytes; at most a few KB more are received.
      Exception: any exception of the client.
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
    """Reads one object with one request, and verifies its checksum.

    Args:
      uri: gs://bucket/name.
      max_bytes: larger objects are refused.
      retry: the storage retries after transient faults, also after damaged and truncated answers.
      timeout_sec: a connection without data for this long is closed; that counts as a transient fault.
      make: makes the client if the process has none yet.

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


class DamagedUpload(ConnectionError):  # noqa: N818 (the name says what happened)
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
    """Uploads one object from the start of `stream`, without retries. The service verifies its checksum.

    Raises:
      FileExistsError: with `only_new`, an object of this name exists. Of several uploads at once, one succeeds.
      DamagedUpload: the service received other bytes.
      Exception: any other exception of the client.
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
        # The service compares the checksums of small uploads, and answers with status 400 if they differ.
        if getattr(error, "code", None) == 400 and "match calculated" in str(error):
            raise DamagedUpload(f"The upload of {uri} was damaged on its way") from error
        raise
