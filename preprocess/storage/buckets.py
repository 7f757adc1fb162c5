"""The part of a `Storage` that all services of objects in buckets have in common. Only `retry` tries again."""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import errno
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, ClassVar, TypeVar, cast

from preprocess.storage.globs import has_wildcard, matching, plain_start
from preprocess.storage.retry import RetryPolicy

# One for each thread that reads images. A new connection costs about three round trips.
NUM_CONNECTIONS = 32
DEFAULT_TIMEOUT_SEC = 30.0
CONNECT_TIMEOUT_SEC = 10.0
# Content up to this size is kept in memory until it is sent, larger content on disk. A shard of 1024 records is 8.5 MB.
SPOOL_BYTES = 32 * 1024 * 1024
_URI = re.compile(r"([a-z0-9]+://)([^/]+)/(.*)", re.DOTALL)
_Result = TypeVar("_Result")


def split_bucket_uri(uri: str, scheme: str) -> tuple[str, str]:
    """(bucket, name) of, for example, `gs://bucket/name`. Raises OSError with EINVAL if the URI has another form."""
    match = _URI.fullmatch(uri)
    if not match or match[1] != scheme:
        raise OSError(errno.EINVAL, f"must be {scheme}bucket/object", uri)
    return match[2], match[3]


class BucketStorage(abc.ABC):
    """A `Storage` of objects. What a subclass adds are single requests to its service, without retries.

    Args:
      retry: the storage retries of each operation.
    """

    scheme: ClassVar[str]
    """With its slashes, for example "gs://"."""

    def __init__(self, retry: RetryPolicy):
        self._retry = retry

    @abc.abstractmethod
    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        """Calls a function with storage retries. Raises TooLarge and FileExistsError as they are, else an OSError."""

    @abc.abstractmethod
    def _download(self, path: str, target: BinaryIO, *, max_bytes: int | None = None) -> None:
        """Downloads an object into the start of a stream, and verifies its checksum; TooLarge if it has more bytes."""

    @abc.abstractmethod
    def _download_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        """A range of an object, of at least one byte; less if the object ends before."""

    @abc.abstractmethod
    def _upload(self, path: str, stream: BinaryIO, size_bytes: int, *, only_new: bool = False) -> None:
        """Uploads an object from the start of a stream; FileExistsError with `only_new` if there is such an object."""

    @abc.abstractmethod
    def _list(self, bucket: str, prefix: str, *, only_first: bool = False) -> dict[str, int]:
        """The objects whose names begin with a text, or the first of them, with their sizes in bytes."""

    @abc.abstractmethod
    def _copy(self, source: str, target: str) -> None:
        """Copies an object within the service."""

    @abc.abstractmethod
    def _delete(self, path: str) -> None:
        """Deletes an object. It may raise FileNotFoundError if there is none."""

    def open(self, path: str) -> BinaryIO:
        # The whole object is downloaded first. So its checksum is verified, and reading cannot fail in the middle.
        spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 (the caller closes it)
        try:
            self._call(lambda: self._download(path, spool), path)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return spool

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        buffer = io.BytesIO()
        self._call(lambda: self._download(path, buffer, max_bytes=max_bytes), path)
        return buffer.getvalue()

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        if not num_bytes:
            return b""
        return self._call(lambda: self._download_part(path, offset=offset, num_bytes=num_bytes), path)

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A new object that is sent when its stream is closed. Nothing is sent if the `with` block raises.

        Objects cannot be appended to, so no part of an incomplete object is kept.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            yield cast(BinaryIO, spool)
            stream = cast(BinaryIO, spool)
            size_bytes = stream.seek(0, os.SEEK_END)
            self._call(lambda: self._upload(path, stream, size_bytes), path)

    def create_new(self, path: str, data: bytes) -> bool:
        try:
            self._call(lambda: self._upload(path, io.BytesIO(data), len(data), only_new=True), path)
        except FileExistsError:
            # An earlier attempt may have created the object, and only its answer was lost.
            return self.read(path) == data
        return True

    def match(self, pattern: str) -> list[str]:
        """The objects that match a path or glob. Raises FileNotFoundError if the bucket does not exist."""
        _, glob = split_bucket_uri(pattern, self.scheme)
        # Listings are sorted, so a plain name comes first of all names that begin with it.
        return list(self._matches(pattern, only_first=not has_wildcard(glob)))

    def sizes(self, pattern: str) -> dict[str, int]:
        """The objects that match a path or glob, with their sizes in bytes, from one listing."""
        return self._matches(pattern)

    def _matches(self, pattern: str, *, only_first: bool = False) -> dict[str, int]:
        bucket, glob = split_bucket_uri(pattern, self.scheme)
        try:
            found = self._call(lambda: self._list(bucket, plain_start(glob), only_first=only_first), pattern)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"No such bucket: {self.scheme}{bucket}") from error
        return {f"{self.scheme}{bucket}/{name}": found[name] for name in matching(glob, sorted(found))}

    def move(self, source: str, target: str) -> None:
        # Copy and deletion are retried separately. Both may be done twice: the result is the same.
        self._call(lambda: self._copy(source, target), source)
        self.delete_file(source)

    def delete_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(lambda: self._delete(path), path)

    def delete_tree(self, path: str) -> None:
        bucket, prefix = split_bucket_uri(f"{path}/", self.scheme)
        with contextlib.suppress(FileNotFoundError):
            names = self._call(lambda: self._list(bucket, prefix), path)
            with concurrent.futures.ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
                for _ in threads.map(self.delete_file, [f"{self.scheme}{bucket}/{name}" for name in names]):
                    pass  # Iterating raises what a thread raised.
