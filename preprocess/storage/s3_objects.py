"""The client of `s3://`, and single requests with it: without retries, since only the module `retry` tries again.

The client is boto3's, so credentials, regions and endpoints are found as by all AWS tools. Checksums are its own: it
sends one with each object, and compares the one that it gets.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

from preprocess.storage.base import TooLarge
from preprocess.storage.buckets import CONNECT_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, NUM_CONNECTIONS, split_bucket_uri
from preprocess.storage.retry import as_os_error

# A larger object is sent in parts: the service takes no more in one request.
_MAX_PUT_BYTES = 4 * 1024**3
_PIECE_BYTES = 1 << 20
# Faults that may pass, although their status says otherwise.
_TRANSIENT_CODES = frozenset({"RequestTimeout", "ConditionalRequestConflict", "OperationAborted"})

_clients: dict[str, Any] = {}
_conditions: dict[tuple[str, str], bool] = {}
_lock = threading.Lock()


def client_of_process() -> Any:
    """The client that all threads of this process share; for public objects only, if there are no credentials."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    with _lock:
        if endpoint not in _clients:
            import boto3
            import botocore
            from botocore.config import Config

            session = boto3.session.Session()
            config = Config(
                retries={"total_max_attempts": 1},
                max_pool_connections=NUM_CONNECTIONS,
                connect_timeout=CONNECT_TIMEOUT_SEC,
                read_timeout=DEFAULT_TIMEOUT_SEC,
                signature_version=None if session.get_credentials() else botocore.UNSIGNED,
            )
            _clients[endpoint] = session.client("s3", config=config)
        return _clients[endpoint]


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, name) of s3://bucket/name. Raises OSError with EINVAL for another form."""
    return split_bucket_uri(uri, "s3://")


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer of the service; None if the error is another one."""
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None


def _code_of(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""


@contextlib.contextmanager
def passing_faults() -> Iterator[None]:
    """A `with` block in which faults that may pass are raised so that they are tried again."""
    try:
        yield
    except Exception as error:
        if _code_of(error) in _TRANSIENT_CODES:
            raise ConnectionError(f"{_code_of(error)}: {error}") from error
        raise


def fault_of(error: Exception, path: str) -> OSError:
    """An exception of the client as an OSError with a message of one line; see `retry.as_os_error`."""
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError") or name.endswith(("TokenError", "RetrievalError")):
        return PermissionError(f"No permission for {path}: {error} (for credentials: aws configure, or AWS_PROFILE)")
    if _code_of(error) == "NoSuchBucket":
        return FileNotFoundError(f"No such bucket: {path}")
    fault = as_os_error(error, path)
    if isinstance(fault, PermissionError) and status_of(error) in (401, 403) and _is_anonymous():
        return PermissionError(f"{fault} (no AWS credentials were found: aws configure, or AWS_PROFILE)")
    return fault


def _is_anonymous() -> bool:
    import botocore

    return client_of_process().meta.config.signature_version is botocore.UNSIGNED


def download(uri: str, target: BinaryIO, *, max_bytes: int | None = None) -> None:
    """Downloads one object with one request into the start of `target`, and compares its checksum if it has one.

    Raises:
      TooLarge: there are more than `max_bytes` bytes; none of them is received.
      Exception: any exception of the client.
    """
    bucket, name = split_uri(uri)
    target.seek(0)
    target.truncate()
    with passing_faults():
        answer = client_of_process().get_object(Bucket=bucket, Key=name)
        with contextlib.closing(answer["Body"]) as body:
            if max_bytes is not None and answer["ContentLength"] > max_bytes:
                raise TooLarge(uri, max_bytes)
            for piece in body.iter_chunks(_PIECE_BYTES):
                target.write(piece)


def download_part(uri: str, *, offset: int, num_bytes: int) -> bytes:
    """Downloads a range of one object, and less if the object ends before. The service has no checksum of a range.

    Raises:
      Exception: any exception of the client.
    """
    bucket, name = split_uri(uri)
    wanted = f"bytes={offset}-{offset + num_bytes - 1}"
    with passing_faults():
        try:
            answer = client_of_process().get_object(Bucket=bucket, Key=name, Range=wanted)
        except Exception as error:
            if status_of(error) == 416:  # The range begins beyond the end.
                return b""
            raise
        with contextlib.closing(answer["Body"]) as body:
            return bytes(body.read(num_bytes))


def upload(
    uri: str, stream: BinaryIO, size_bytes: int, *, only_new: bool = False, replaced: str | None = None
) -> dict[str, Any]:
    """Uploads one object from the start of `stream`. The service verifies its checksum.

    Args:
      uri: s3://bucket/name.
      stream: the content.
      size_bytes: of the content.
      only_new: nothing is done if an object of this name exists.
      replaced: nothing is done if the entity tag of the object is another one.

    Returns:
      The answer of the service.

    Raises:
      FileExistsError: `only_new` or `replaced` does not hold. Of several such uploads at once, one succeeds.
      Exception: any other exception of the client.
    """
    bucket, name = split_uri(uri)
    condition = {"IfNoneMatch": "*"} if only_new else {"IfMatch": replaced} if replaced is not None else {}
    stream.seek(0)
    client = client_of_process()
    with passing_faults():
        if size_bytes > _MAX_PUT_BYTES and not condition:
            client.upload_fileobj(stream, bucket, name)
            return {}
        try:
            return client.put_object(
                Bucket=bucket, Key=name, Body=stream, ContentType="application/octet-stream", **condition
            )
        except Exception as error:
            # 404: the object to replace is gone.
            if condition and (status_of(error) == 412 or (replaced is not None and _code_of(error) == "NoSuchKey")):
                raise FileExistsError(errno.EEXIST, "there is another such object", uri) from error
            raise


def has_conditions(folder: str) -> bool:
    """Whether the service obeys the conditions of `upload`. Amazon's does; some servers ignore or refuse them.

    It is tried once for each bucket, with an object that is deleted again.

    Raises:
      Exception: any exception of the client.
    """
    probe = f"{folder}/.{uuid.uuid4().hex}.probe"
    key = (client_of_process().meta.endpoint_url, split_uri(probe)[0])
    if key not in _conditions:
        upload(probe, io.BytesIO(b"1"), 1)
        try:
            _conditions[key] = all(
                _is_refused(probe, **condition)
                for condition in ({"only_new": True}, {"replaced": '"00000000000000000000000000000000"'})
            )
        finally:
            bucket, name = split_uri(probe)
            client_of_process().delete_object(Bucket=bucket, Key=name)
    return _conditions[key]


def _is_refused(uri: str, **condition: Any) -> bool:
    try:
        upload(uri, io.BytesIO(b"2"), 1, **condition)
    except FileExistsError:
        return True
    except Exception as error:
        if status_of(error) in (400, 501):  # The server does not know the condition.
            return False
        raise
    return False
