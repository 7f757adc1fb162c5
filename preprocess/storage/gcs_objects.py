"""The client of `gs://`, which is Google's, and single requests with it, with checksums and without retries.

Beam's `gs://` filesystem requests an object's metadata, then ranges of it without verifying a checksum, and it has its
own retries. Here a read is one request whose checksum is verified, and only the module `retry` tries it again.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from preprocess.storage.base import TooLarge
from preprocess.storage.buckets import CONNECT_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, NUM_CONNECTIONS, split_bucket_uri

if TYPE_CHECKING:
    from google.cloud import storage

_EMULATOR = "STORAGE_EMULATOR_HOST"

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
    return split_bucket_uri(uri, "gs://")


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
