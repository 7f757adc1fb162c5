"""A `VersionedObject` of `gs://`, by the generations of its object."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from preprocess.storage.buckets import CONNECT_TIMEOUT_SEC
from preprocess.storage.retry import RetryPolicy, as_os_error, call
from preprocess.storage.versioned_object import Version

if TYPE_CHECKING:
    from google.cloud import storage

# Short, because renewing a lease must not take longer than the lease lasts.
_TIMEOUT_SEC = 10.0
_NO_OBJECT = 0
_PRECONDITION_FAILED = 412
_CONTENT, _ASKED = "content", "asked"
_Result = TypeVar("_Result")


class GcsVersionedObject:
    """A `VersionedObject` of `gs://`.

    Args:
      path: gs://bucket/name.
      make_blob: gives the client's handle of the object.
      retry: the storage retries of each operation.
    """

    def __init__(self, path: str, make_blob: Callable[[], storage.Blob], retry: RetryPolicy):
        self.path = path
        self._make_blob = make_blob
        self._retry = retry

    def within(self, limit_sec: float) -> GcsVersionedObject:
        """The same object, with storage retries of at most this many seconds."""
        retry = dataclasses.replace(self._retry, limit_sec=min(limit_sec, self._retry.limit_sec))
        return GcsVersionedObject(self.path, self._make_blob, retry)

    def create(self, text: str) -> Version | None:
        """Writes the object if it does not exist. Returns None if it exists. Raises OSError."""
        return self._write(text, _NO_OBJECT)

    def replace(self, text: str, found: Version) -> Version | None:
        """Writes the object if its version is still `found`. Otherwise returns None. Raises OSError."""
        return self._write(text, int(found.generation))

    def _write(self, text: str, generation: int) -> Version | None:
        def write_once() -> Version:
            blob = self._make_blob()
            # The text is in the metadata, so one request gets text and generation. The content is for people.
            blob.metadata = {_CONTENT: text}
            blob.upload_from_string(
                text, "application/json", if_generation_match=generation, timeout=self._timeout(), retry=None
            )
            return Version(text=text, generation=int(blob.generation or 0))

        return self._call(write_once)

    def look(self) -> Version | None:
        """The current version; None if the object does not exist. Raises OSError."""
        return self._call(self._look_once)

    def _look_once(self) -> Version:
        blob = self._make_blob()
        blob.reload(timeout=self._timeout(), retry=None)
        return Version(text=(blob.metadata or {}).get(_CONTENT, ""), generation=int(blob.generation or 0))

    def age_sec(self, found: Version) -> float | None:
        """The age of the version `found` in seconds, by the clock of the service.

        It changes the metadata of the object, which does not change the generation. The answer contains the time of
        this change and the time when the content was written.

        Returns:
          The age; None if the version of the object is not `found` any more.

        Raises:
          OSError: storage failed, or the service does not say the times.
        """

        def age_once() -> float:
            blob = self._make_blob()
            blob.metadata = {_CONTENT: found.text, _ASKED: uuid.uuid4().hex}
            blob.patch(if_generation_match=found.generation, timeout=self._timeout(), retry=None)
            if blob.updated is None or blob.time_created is None:
                raise OSError(f"{self.path}: the service does not say when it was written")
            return max(0.0, (blob.updated - blob.time_created).total_seconds())

        return self._call(age_once)

    def delete(self, found: Version) -> None:
        """Deletes the object if its version is still `found`. Raises OSError."""
        self._call(
            lambda: self._make_blob().delete(if_generation_match=found.generation, timeout=self._timeout(), retry=None)
        )

    @staticmethod
    def _timeout() -> tuple[float, float]:
        return CONNECT_TIMEOUT_SEC, _TIMEOUT_SEC

    def _call(self, function: Callable[[], _Result]) -> _Result | None:
        """Calls with storage retries. Returns None if the object has another version or does not exist."""
        try:
            return call(function, self._retry, service="gs")
        except Exception as error:
            if getattr(error, "code", None) == _PRECONDITION_FAILED:
                return None
            fault = as_os_error(error, self.path)
            if isinstance(fault, FileNotFoundError) and not str(fault).startswith("No such bucket"):
                return None
            raise fault from error
