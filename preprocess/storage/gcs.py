"""A `Storage` of `gs://`. Only the module `retry` tries operations again; no layer below does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from preprocess.storage.base import TooLarge
from preprocess.storage.buckets import CONNECT_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, BucketStorage
from preprocess.storage.gcs_objects import client_of_process, download, make_client, split_uri, upload
from preprocess.storage.gcs_versioned import GcsVersionedObject
from preprocess.storage.retry import RetryPolicy, as_os_error, call

if TYPE_CHECKING:
    from google.cloud import storage

# The service may take about half a minute to answer a request to copy.
_COPY_TIMEOUT_SEC = 90.0
_Result = TypeVar("_Result")


class GcsStorage(BucketStorage):
    """A `Storage` of `gs://` objects.

    Args:
      retry: the storage retries of each operation.
      timeout_sec: how long a connection may be without data.
      make: makes the client if the process has none yet.
    """

    scheme = "gs://"

    def __init__(
        self,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        *,
        timeout_sec: float = DEFAULT_TIMEOUT_SEC,
        make: Callable[[], storage.Client] = make_client,
    ):
        super().__init__(retry)
        self._timeout_sec = timeout_sec
        self._make = make

    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        try:
            return call(function, self._retry, service="gs")
        except (TooLarge, FileExistsError):
            raise
        except Exception as error:
            raise as_os_error(error, path) from error

    def _blob(self, path: str) -> storage.Blob:
        bucket, name = split_uri(path)
        return client_of_process(self._make).bucket(bucket).blob(name)

    def _timeout(self, timeout_sec: float = 0) -> tuple[float, float]:
        return CONNECT_TIMEOUT_SEC, max(timeout_sec, self._timeout_sec)

    def versioned(self, path: str) -> GcsVersionedObject:
        """An object that is overwritten only if it has not changed; see `VersionedObject`."""
        return GcsVersionedObject(path, lambda: self._blob(path), self._retry)

    def _download(self, path: str, target: BinaryIO, *, max_bytes: int | None = None) -> None:
        download(path, target, max_bytes=max_bytes, timeout_sec=self._timeout_sec, make=self._make)

    def _download_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        # The service has no checksum of a range.
        try:
            data = self._blob(path).download_as_bytes(
                start=offset,
                end=offset + num_bytes - 1,
                timeout=self._timeout(),
                retry=None,
                checksum=None,
                raw_download=True,
            )
        except Exception as error:
            if getattr(error, "code", None) == 416:  # The range begins beyond the end.
                return b""
            raise
        return data[:num_bytes]

    def _upload(self, path: str, stream: BinaryIO, size_bytes: int, *, only_new: bool = False) -> None:
        upload(path, stream, size_bytes, only_new=only_new, timeout_sec=self._timeout_sec, make=self._make)

    def _list(self, bucket: str, prefix: str, *, only_first: bool = False) -> dict[str, int]:
        blobs = client_of_process(self._make).list_blobs(
            bucket,
            prefix=prefix,
            max_results=1 if only_first else None,
            fields="items(name,size),nextPageToken",
            timeout=self._timeout(),
            retry=None,
        )
        return {blob.name: blob.size for blob in blobs}

    def _copy(self, source: str, target: str) -> None:
        old, new = self._blob(source), self._blob(target)
        token: str | None = ""
        while token is not None:
            token, _, _ = new.rewrite(old, token=token or None, timeout=self._timeout(_COPY_TIMEOUT_SEC), retry=None)

    def _delete(self, path: str) -> None:
        self._blob(path).delete(timeout=self._timeout(), retry=None)
