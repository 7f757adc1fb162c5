"""An object of `gs://` that is written only over the very content that was seen: compare and swap, by generations.

The service gives each content of an object a number, its generation, and carries out a request with a precondition on
it whole or not at all. Its answers also hold its own time, so nobody has to trust the clock of a machine.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from preprocess.storage.gcs_objects import CONNECT_TIMEOUT_SEC
from preprocess.storage.retry import RetryPolicy, as_os_error, call

if TYPE_CHECKING:
    from google.cloud import storage

# Short: who renews a lease must not hang for as long as it lasts.
_TIMEOUT_SEC = 10.0
_NO_OBJECT = 0
_PRECONDITION_FAILED = 412
_CONTENT, _ASKED = "content", "asked"
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One content of an object: what it says, and the number that no other content of it has."""

    text: str
    generation: int


class VersionedObject:
    """A small text under a name, which every writer changes only if it is as that writer knows it.

    A request whose answer was lost is sent again; it then conflicts with itself, and its sender has to look whose text
    is there. So a text must say whose it is.

    Args:
      path: gs://bucket/name.
      make_blob: gives the client's handle of it.
      retry: how long to go on after transient faults, for each operation.
    """

    def __init__(self, path: str, make_blob: Callable[[], storage.Blob], retry: RetryPolicy):
        self.path = path
        self._make_blob = make_blob
        self._retry = retry

    def within(self, limit_sec: float) -> VersionedObject:
        """The same object, with operations that give up after this long at most."""
        retry = dataclasses.replace(self._retry, limit_sec=min(limit_sec, self._retry.limit_sec))
        return VersionedObject(self.path, self._make_blob, retry)

    def create(self, text: str) -> Version | None:
        """Writes the object if there is none. Gives None if there is one. Raises OSError."""
        return self._write(text, _NO_OBJECT)

    def replace(self, text: str, found: Version) -> Version | None:
        """Writes the object if it still is as `found`. Gives None if it is not, or is gone. Raises OSError."""
        return self._write(text, found.generation)

    def _write(self, text: str, generation: int) -> Version | None:
        def write_once() -> Version:
            blob = self._make_blob()
            # In the metadata, since text and generation can then be had by one request; the content is for people.
            blob.metadata = {_CONTENT: text}
            blob.upload_from_string(
                text, "application/json", if_generation_match=generation, timeout=self._timeout(), retry=None
            )
            return Version(text=text, generation=int(blob.generation or 0))

        return self._call(write_once)

    def look(self) -> Version | None:
        """What is there now; None if there is no such object. Raises OSError."""
        return self._call(self._look_once)

    def _look_once(self) -> Version:
        blob = self._make_blob()
        blob.reload(timeout=self._timeout(), retry=None)
        return Version(text=(blob.metadata or {}).get(_CONTENT, ""), generation=int(blob.generation or 0))

    def age_sec(self, found: Version) -> float | None:
        """How long ago `found` was written, in seconds, by the clock of the service alone.

        Asked by a change to the object's metadata, whose answer has the time of that change and the time when this
        content was written; the generation stays.

        Returns:
          None if the object is no longer as `found`, or is gone.

        Raises:
          OSError: it cannot be told.
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
        """Deletes the object if it still is as `found`. Raises OSError."""
        self._call(
            lambda: self._make_blob().delete(if_generation_match=found.generation, timeout=self._timeout(), retry=None)
        )

    @staticmethod
    def _timeout() -> tuple[float, float]:
        return CONNECT_TIMEOUT_SEC, _TIMEOUT_SEC

    def _call(self, function: Callable[[], _Result]) -> _Result | None:
        """Calls with retries; an object that is not as wanted, or is gone, gives None."""
        try:
            return call(function, self._retry)
        except Exception as error:
            if getattr(error, "code", None) == _PRECONDITION_FAILED:
                return None
            fault = as_os_error(error, self.path)
            if isinstance(fault, FileNotFoundError) and not str(fault).startswith("No such bucket"):
                return None
            raise fault from error
