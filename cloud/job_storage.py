"""The bucket of a job: looks for, reads and writes files there, and turns faults into one line."""

from __future__ import annotations

import contextlib
import posixpath
import shutil
from collections.abc import Iterator, Sequence

from configs.errors import InputError, cause_in_one_line
from configs.network_faults import network_fault
from configs.service_refusals import bucket_remedy
from preprocess.storage.base import Storage
from preprocess.storage.retry import NotReached, RetryPolicy

_COPY_BYTES = 1024 * 1024
_RETRY_LIMIT_SEC = 30.0  # Short, because a person waits.


def job_storage() -> Storage:
    """Storage with short retries, because a person waits."""
    from preprocess.storage.router import UriStorage

    return UriStorage(RetryPolicy(limit_sec=_RETRY_LIMIT_SEC))


@contextlib.contextmanager
def faults_of(uri: str) -> Iterator[None]:
    """Turns faults of storage into an InputError that names what was read or written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NotReached):
            raise InputError(f"{error}.") from error
        if fault := network_fault(str(error)):
            raise InputError(f"{uri}: {fault}. Check the network.") from error
        cause = cause_in_one_line(error).removeprefix(f"{uri}: ").rstrip(".")
        if remedy := bucket_remedy(cause):
            raise InputError(f"{uri}: {cause}. {remedy}") from error
        raise InputError(
            f"{uri}: {cause}. Check the name of the bucket, and that you may use it: "
            "gcloud auth application-default login"
        ) from error


def is_there(uri: str, storage: Storage) -> bool:
    """Whether there is such a file.

    Raises:
      InputError: the bucket is missing, or access is denied.
    """
    with faults_of(uri):
        return bool(storage.match(uri))


def read_file(uri: str, storage: Storage) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
      InputError: the bucket is missing, or the file cannot be read.
    """
    with faults_of(uri):
        try:
            return storage.read(uri)
        except FileNotFoundError:
            storage.match(uri)  # Raises an error if the bucket itself is missing.
            return None


def put_file(content: bytes, uri: str, storage: Storage) -> None:
    """Writes a file unless it exists. Its name must depend on its content, so an existing file has the same content.

    Raises:
      InputError: it cannot be written.
    """
    if is_there(uri, storage):
        return
    with faults_of(uri), storage.create(uri) as stream:
        stream.write(content)


def copy_files(names: Sequence[str], source: str, target: str, storage: Storage) -> None:
    """Copies files from one folder to another, in order.

    Raises:
      InputError: a file cannot be read or written.
    """
    for name in names:
        path = posixpath.join(target, name)
        with faults_of(path), storage.open(posixpath.join(source, name)) as old, storage.create(path) as new:
            shutil.copyfileobj(old, new, _COPY_BYTES)
