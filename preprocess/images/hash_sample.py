"""A sample of images by the hashes of their URIs: like a random one, but the same for the same images."""

from __future__ import annotations

import hashlib
import heapq

CALIBRATION_IMAGES = 300
"""The number of images that are drawn for the calibration of int8."""


class HashSample:
    """The images whose URIs have the smallest hashes.

    Args:
      size: how many, at most.
    """

    def __init__(self, size: int):
        self._size = size
        self._largest_first: list[tuple[int, str]] = []

    def offer(self, location: str, uri: str) -> None:
        """Takes an image into account.

        Args:
          location: of the image.
          uri: as it stands in its list.
        """
        rank = -int.from_bytes(hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest()[:8], "big")
        if len(self._largest_first) < self._size:
            heapq.heappush(self._largest_first, (rank, location))
        else:
            heapq.heappushpop(self._largest_first, (rank, location))

    def locations(self) -> tuple[str, ...]:
        """The locations of the sample."""
        return tuple(location for _, location in sorted(self._largest_first, reverse=True))
