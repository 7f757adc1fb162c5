"""Computes the digest of the bytes that were read from a stream, even if another process changes the file."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, cast

_READ_BYTES = 1 << 20


class HashingReader(io.RawIOBase):
    """Passes on the bytes that are read from a stream, and hashes them. It costs about a millisecond a megabyte.

    Args:
      stream: read from its current position; the caller closes it.
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
        """A buffered stream of the same bytes, which reads in large pieces to make the hashing cheap."""
        return cast(BinaryIO, io.BufferedReader(self, _READ_BYTES))

    @property
    def sha256(self) -> str:
        """The digest of all bytes that were read so far, 64 hex digits."""
        return self._digest.hexdigest()
