"""An object of a bucket with compare and swap: a writer overwrites only the content that it has seen.

The service gives each content of an object a name that no other content of it has: a number in `gs://` (generation), a
text in `s3://` (entity tag). A request may have a precondition on it; if that does not hold, the service does nothing.
The answers also contain the service's own time, so the clocks of machines do not matter.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One content of an object: its text, and its generation, which no other content of the object has."""

    text: str
    generation: int | str


class VersionedObject(Protocol):
    """An object with a small text. A writer changes it only if it is still the version that the writer knows.

    If the answer to a request is lost, the request is sent again and then conflicts with itself. The sender must then
    read the text to see whether it is its own. So a text must name its writer.
    """

    @property
    def path(self) -> str:
        """The URI of the object."""

    def within(self, limit_sec: float) -> VersionedObject:
        """The same object, with storage retries of at most this many seconds."""

    def create(self, text: str) -> Version | None:
        """Writes the object if it does not exist. Returns None if it exists. Raises OSError."""

    def replace(self, text: str, found: Version) -> Version | None:
        """Writes the object if its version is still `found`. Otherwise returns None. Raises OSError."""

    def look(self) -> Version | None:
        """The current version; None if the object does not exist. Raises OSError."""

    def age_sec(self, found: Version) -> float | None:
        """The age of the version `found` in seconds, by the clock of the service.

        Returns:
          The age; None if the version of the object is not `found` any more.

        Raises:
          OSError: storage failed, or the service does not say the times.
        """

    def delete(self, found: Version) -> None:
        """Deletes the object if its version is still `found`. Raises OSError."""
