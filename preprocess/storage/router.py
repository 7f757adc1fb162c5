"""Storage for local paths, `gs://` and `s3://` without Beam, for the trainer and for programs of the cloud."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from configs.errors import InputError
from configs.install_hint import install_hint
from preprocess.storage.base import LocalStorage, Storage
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.s3 import S3Storage
from preprocess.storage.scratch import scratch_folder
from preprocess.storage.uris import has_scheme, is_in_bucket, is_web, shown
from preprocess.storage.versioned_object import VersionedObject

_COPY_BYTES = 1 << 20


@functools.cache
def require_client(scheme: str) -> None:
    """Makes sure that the client of "gs" or "s3" is installed. Raises InputError if it is not."""
    try:
        if scheme == "gs":
            import google.cloud.storage  # noqa: F401 (what is to be there)
        else:
            import boto3  # noqa: F401
    except ImportError as error:
        package, extra = ("google-cloud-storage", "train") if scheme == "gs" else ("boto3", "aws")
        raise InputError(
            f"{scheme}:// needs the package {package}, which is not installed ({error}). {install_hint(extra)}"
        ) from error


def refuse_web(path: str) -> None:
    """Makes sure that a path is no web address.

    Raises:
      InputError: it is one.
    """
    if is_web(path):
        raise InputError(
            f"{shown(path)}: only the images of a list may lie at web addresses. Lists, dict.txt and outputs lie on a "
            "disk or in a bucket: download the file and give its path."
        )


class UriStorage:
    """A `Storage` of local paths through the operating system, of buckets through the clients of Google and AWS.

    Operations raise InputError for other schemes, and for buckets whose client is not installed.

    Args:
      retry: the storage retries of each operation on remote files.
    """

    def __init__(self, retry: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008 (frozen)
        self._local = LocalStorage()
        self._retry = retry

    def _gcs(self) -> GcsStorage:
        return GcsStorage(self._retry)

    def _bucket(self, path: str) -> GcsStorage | S3Storage | None:
        """The storage of a path in a bucket; None for other paths."""
        if path.startswith("gs://"):
            require_client("gs")
            return self._gcs()
        if path.startswith("s3://"):
            require_client("s3")
            return S3Storage(self._retry)
        return None

    def _of(self, path: str) -> Storage:
        bucket = self._bucket(path)
        if bucket is not None:
            return bucket
        refuse_web(path)
        if has_scheme(path):
            raise InputError(f"{path}: only local paths, gs:// and s3:// can be opened here. Copy it to one of them.")
        return self._local

    def versioned(self, path: str) -> VersionedObject | None:
        """An object that is overwritten only if it has not changed; None if the storage does not support that.

        Raises:
          OSError: a bucket cannot be written to.
        """
        bucket = self._bucket(path)
        return bucket.versioned(path) if bucket is not None else None

    def open(self, path: str) -> BinaryIO:
        return self._of(path).open(path)

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        return self._of(path).read(path, max_bytes=max_bytes)

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        return self._of(path).read_part(path, offset=offset, num_bytes=num_bytes)

    def create(
        self, path: str, *, keep_partial: bool = False, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        return self._of(path).create(path, keep_partial=keep_partial, durable=durable)

    def create_new(self, path: str, data: bytes) -> bool:
        return self._of(path).create_new(path, data)

    def match(self, pattern: str) -> list[str]:
        return self._of(pattern).match(pattern)

    def sizes(self, pattern: str) -> dict[str, int]:
        return self._of(pattern).sizes(pattern)

    def move(self, source: str, target: str) -> None:
        self._of(source).move(source, target)

    def delete_file(self, path: str) -> None:
        self._of(path).delete_file(path)

    def delete_tree(self, path: str) -> None:
        self._of(path).delete_tree(path)


@contextlib.contextmanager
def local_copy(path: str, storage: Storage) -> Iterator[str]:
    """Gives a local path of a file within the `with` block: its own path, or that of a temporary copy of an object.

    Args:
      path: a local path, gs:// or s3://.
      storage: of the file.

    Raises:
      OSError: the file cannot be read.
    """
    if not is_in_bucket(path):
        yield path
        return
    with scratch_folder() as folder:
        copy = os.path.join(folder, posixpath.basename(path))
        with storage.open(path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        yield copy
