"""A `Storage` of `s3://`, at Amazon or another server of its protocol. Only the module `retry` tries again."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from preprocess.storage.base import TooLarge, is_file
from preprocess.storage.buckets import BucketStorage
from preprocess.storage.retry import RetryPolicy, call
from preprocess.storage.s3_objects import (
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


class S3Storage(BucketStorage):
    """A `Storage` of `s3://` objects.

    Args:
      retry: the storage retries of each operation.
    """

    scheme = "s3://"

    def __init__(self, retry: RetryPolicy = RetryPolicy()):  # noqa: B008 (frozen)
        super().__init__(retry)

    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        def call_once() -> _Result:
            with passing_faults():
                return function()

        try:
            return call(call_once, self._retry, service="s3")
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

    def create_new(self, path: str, data: bytes) -> bool:
        if self._has_conditions(path):
            return super().create_new(path, data)
        if is_file(self, path):
            return False
        self._call(lambda: self._upload(path, io.BytesIO(data), len(data)), path)
        # Without conditions another process may have written at the same time.
        return self.read(path) == data

    def _download(self, path: str, target: BinaryIO, *, max_bytes: int | None = None) -> None:
        download(path, target, max_bytes=max_bytes)

    def _download_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        return download_part(path, offset=offset, num_bytes=num_bytes)

    def _upload(self, path: str, stream: BinaryIO, size_bytes: int, *, only_new: bool = False) -> None:
        upload(path, stream, size_bytes, only_new=only_new)

    def _list(self, bucket: str, prefix: str, *, only_first: bool = False) -> dict[str, int]:
        client = client_of_process()
        if only_first:
            pages = [client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)]
        else:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def _copy(self, source: str, target: str) -> None:
        from boto3.s3.transfer import TransferConfig

        bucket, name = split_uri(source)
        client_of_process().copy(
            {"Bucket": bucket, "Key": name},
            *split_uri(target),
            Config=TransferConfig(multipart_threshold=_MAX_COPY_BYTES, use_threads=False),
        )

    def _delete(self, path: str) -> None:
        bucket, name = split_uri(path)
        client_of_process().delete_object(Bucket=bucket, Key=name)
