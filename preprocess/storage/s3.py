"""A `Storage` of `s3://`, at Amazon or another server of its protocol. Only the module `retry` tries again."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar, cast

from preprocess.storage.base import TooLarge
from preprocess.storage.gcs_objects import SPOOL_BYTES
from preprocess.storage.globs import has_wildcard, matching, plain_start
from preprocess.storage.retry import RetryPolicy, call
from preprocess.storage.s3_objects import (
    NUM_CONNECTIONS,
    client_of_process,
    download,
    download_part,
    fault_of,
    has_conditions,
    passing_faults,
    split_uri,
    upload,
)
from preprocess.storage.s3_versioned import S3VersionedObject

# The service copies up to this size in one request.
_MAX_COPY_BYTES = 5 * 1024**3
_Result = TypeVar("_Result")


class S3Storage:
    """A `Storage` of `s3://` objects.

    Args:
      retry: the storage retries of each operation.
    """

    def __init__(self, retry: RetryPolicy = RetryPolicy()):  # noqa: B008 (frozen)
        self._retry = retry

    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        def call_once() -> _Result:
            with passing_faults():
                return function()

        try:
            return call(call_once, self._retry)
        except (TooLarge, FileExistsError):
            raise
        except Exception as error:
            raise fault_of(error, path) from error

    def versioned(self, path: str) -> S3VersionedObject | None:
        """An object that is overwritten only if it has not changed; None if the server knows no such condition.

        Raises:
          OSError: the bucket cannot be written to.
        """
        if not self._has_conditions(path):
            return None
        return S3VersionedObject(path, self._retry)

    def _has_conditions(self, path: str) -> bool:
        return self._call(lambda: has_conditions(path.rpartition("/")[0]), path)

    def open(self, path: str) -> BinaryIO:
        # The whole object is downloaded first. So its checksum is verified, and reading cannot fail in the middle.
        spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 (the caller closes it)
        try:
            self._call(lambda: download(path, spool), path)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return spool

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        buffer = io.BytesIO()
        self._call(lambda: download(path, buffer, max_bytes=max_bytes), path)
        return buffer.getvalue()

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        if not num_bytes:
            return b""
        return self._call(lambda: download_part(path, offset=offset, num_bytes=num_bytes), path)

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A new object that is sent when its stream is closed. Nothing is sent if the `with` block raises.

        Objects cannot be appended to, so no part of an incomplete object is kept.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            yield cast(BinaryIO, spool)
            stream = cast(BinaryIO, spool)
            size_bytes = stream.seek(0, os.SEEK_END)
            self._call(lambda: upload(path, stream, size_bytes), path)

    def create_new(self, path: str, data: bytes) -> bool:
        only_new = self._has_conditions(path)
        if not only_new and self.match(path):
            return False
        try:
            self._call(lambda: upload(path, io.BytesIO(data), len(data), only_new=only_new), path)
        except FileExistsError:
            # An earlier attempt may have created the object, and only its answer was lost.
            return self.read(path) == data
        # Without conditions another process may have written at the same time.
        return only_new or self.read(path) == data

    def _list(self, bucket: str, prefix: str, *, first: bool = False) -> dict[str, int]:
        """The objects that begin with `prefix`, or the first of them, sorted, with their sizes in bytes."""
        client = client_of_process()
        if first:
            pages = [client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)]
        else:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
        return dict(sorted(found.items()))

    def match(self, pattern: str) -> list[str]:
        """The objects that match a path or glob. Raises FileNotFoundError if the bucket does not exist."""
        return list(self._matches(pattern, first=True))

    def sizes(self, pattern: str) -> dict[str, int]:
        """The objects that match a path or glob, with their sizes in bytes, from one listing."""
        return self._matches(pattern, first=False)

    def _matches(self, pattern: str, *, first: bool) -> dict[str, int]:
        bucket, glob = split_uri(pattern)
        # Listings are sorted, so a plain name comes first of all names that begin with it.
        only_first = first and not has_wildcard(glob)
        try:
            found = self._call(lambda: self._list(bucket, plain_start(glob), first=only_first), pattern)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"No such bucket: s3://{bucket}") from error
        return {f"s3://{bucket}/{name}": found[name] for name in matching(glob, found)}

    def move(self, source: str, target: str) -> None:
        # Copy and deletion are retried separately. Both may be done twice: the result is the same.
        self._call(lambda: self._copy(source, target), source)
        self.delete_file(source)

    def _copy(self, source: str, target: str) -> None:
        from boto3.s3.transfer import TransferConfig

        bucket, name = split_uri(source)
        client_of_process().copy(
            {"Bucket": bucket, "Key": name},
            *split_uri(target),
            Config=TransferConfig(multipart_threshold=_MAX_COPY_BYTES, use_threads=False),
        )

    def delete_file(self, path: str) -> None:
        bucket, name = split_uri(path)
        with contextlib.suppress(FileNotFoundError):
            self._call(lambda: client_of_process().delete_object(Bucket=bucket, Key=name), path)

    def delete_tree(self, path: str) -> None:
        bucket, prefix = split_uri(f"{path}/")
        with contextlib.suppress(FileNotFoundError):
            names = self._call(lambda: self._list(bucket, prefix), path)
            with concurrent.futures.ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
                for _ in threads.map(self.delete_file, [f"s3://{bucket}/{name}" for name in names]):
                    pass  # Iterating raises what a thread raised.
