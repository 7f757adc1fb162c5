"""The digest of what was really read from a stream, whoever writes to the file meanwhile."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, cast

_READ_BYTES = 1 << 20


class HashingReader(io.RawIOBase):
    """Passes on what is read from a stream, and hashes it: about a millisecond a megabyte.

    Args:
      stream: read from its position on; closed by whoever opened it.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase.readinto`."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._digest.update(data)
        return len(data)

    def buffered(self) -> BinaryIO:
        """What to read from, in pieces that make the hashing cheap."""
        return cast(BinaryIO, io.BufferedReader(self, _READ_BYTES))

    @property
    def sha256(self) -> str:
        """Of all that was read so far, 64 hex digits; of the whole file once a reader has met its end."""
        return self._digest.hexdigest()
