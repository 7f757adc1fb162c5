"""A `Storage` of `gs://`. Only the module `retry` tries operations again; no layer below does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from preprocess.storage.gcs_objects import (
    CONNECT_TIMEOUT_SEC,
    DEFAULT_TIMEOUT_SEC,
    NUM_CONNECTIONS,
    SPOOL_BYTES,
    client_of_process,
    download,
    make_client,
    read_object,
    split_uri,
    upload,
)
from preprocess.storage.gcs_versioned import GcsVersionedObject
from preprocess.storage.globs import glob_regex, has_wildcard, matching, plain_start
from preprocess.storage.retry import RetryPolicy, as_os_error, call

if TYPE_CHECKING:
    from google.cloud import storage

# The service may take about half a minute to answer a request to copy.
_COPY_TIMEOUT_SEC = 90.0
_Result = TypeVar("_Result")


class GcsStorage:
    """A `Storage` of `gs://` objects.

    Args:
      retry: the storage retries of each operation.
      timeout_sec: how long a connection may be without data.
      make: makes the client if the process has none yet.
    """

    def __init__(
        self,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        *,
        timeout_sec: float = DEFAULT_TIMEOUT_SEC,
        make: Callable[[], storage.Client] = make_client,
    ):
        self._retry = retry
        self._timeout_sec = timeout_sec
        self._make = make

    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        try:
            return call(function, self._retry)
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

    def open(self, path: str) -> BinaryIO:
        # The whole object is downloaded first. So its checksum is verified, and reading cannot fail in the middle.
        spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 (the caller closes it)
        try:
            self._call(lambda: download(path, spool, timeout_sec=self._timeout_sec, make=self._make), path)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return spool

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        return read_object(path, max_bytes=max_bytes, retry=self._retry, timeout_sec=self._timeout_sec, make=self._make)

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        # The service has no checksum of a range.
        def read_once() -> bytes:
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

        return self._call(read_once, path) if num_bytes else b""

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A new object that is sent when its stream is closed. Nothing is sent if the `with` block raises.

        Objects cannot be appended to, so no part of an incomplete object is kept.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            yield cast(BinaryIO, spool)
            stream = cast(BinaryIO, spool)
            size_bytes = stream.seek(0, os.SEEK_END)
            self._call(lambda: upload(path, stream, size_bytes, timeout_sec=self._timeout_sec, make=self._make), path)

    def create_new(self, path: str, data: bytes) -> bool:
        def send() -> None:
            upload(path, io.BytesIO(data), len(data), only_new=True, timeout_sec=self._timeout_sec, make=self._make)

        try:
            self._call(send, path)
        except FileExistsError:
            # An earlier attempt may have created the object, and only its answer was lost.
            return self.read(path) == data
        return True

    def _list(self, bucket: str, prefix: str, *, max_results: int | None = None) -> list[str]:
        """The names of the objects that begin with `prefix`, sorted."""
        blobs = client_of_process(self._make).list_blobs(
            bucket,
            prefix=prefix,
            max_results=max_results,
            fields="items(name),nextPageToken",
            timeout=self._timeout(),
            retry=None,
        )
        return [blob.name for blob in blobs]

    def match(self, pattern: str) -> list[str]:
        """The objects that match a path or glob. Raises FileNotFoundError if the bucket does not exist."""
        bucket, glob = split_uri(pattern)
        # Listings are sorted, so a plain name comes first of all names that begin with it.
        max_results = None if has_wildcard(glob) else 1
        try:
            names = call(lambda: self._list(bucket, plain_start(glob), max_results=max_results), self._retry)
        except Exception as error:
            fault = as_os_error(error, pattern)
            if isinstance(fault, FileNotFoundError):
                fault = FileNotFoundError(f"No such bucket: gs://{bucket}")
            raise fault from error
        return [f"gs://{bucket}/{name}" for name in matching(glob, names)]

    def sizes(self, pattern: str) -> dict[str, int]:
        """The objects that match a path or glob, with their sizes in bytes, from one listing."""
        bucket, glob = split_uri(pattern)
        regex = glob_regex(glob)

        def list_once() -> dict[str, int]:
            blobs = client_of_process(self._make).list_blobs(
                bucket,
                prefix=plain_start(glob),
                fields="items(name,size),nextPageToken",
                timeout=self._timeout(),
                retry=None,
            )
            return {blob.name: blob.size for blob in blobs if blob.name == glob or regex.fullmatch(blob.name)}

        found = self._call(list_once, pattern)
        return {f"gs://{bucket}/{name}": size for name, size in sorted(found.items()) if not name.endswith("/")}

    def move(self, source: str, target: str) -> None:
        # Copy and deletion are retried separately. Both may be done twice: the result is the same.
        self._call(lambda: self._copy(source, target), source)
        self.delete_file(source)

    def _copy(self, source: str, target: str) -> None:
        old, new = self._blob(source), self._blob(target)
        token: str | None = ""
        while token is not None:
            token, _, _ = new.rewrite(old, token=token or None, timeout=self._timeout(_COPY_TIMEOUT_SEC), retry=None)

    def delete_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(lambda: self._blob(path).delete(timeout=self._timeout(), retry=None), path)

    def delete_tree(self, path: str) -> None:
        bucket, name = split_uri(f"{path}/")
        with contextlib.suppress(FileNotFoundError):
            names = self._call(lambda: self._list(bucket, name), path)
            with concurrent.futures.ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
                for _ in threads.map(self.delete_file, [f"gs://{bucket}/{name}" for name in names]):
                    pass  # Iterating raises what a thread raised.
