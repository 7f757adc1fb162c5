"""A sample of images by the hashes of their URIs: like a random one, but the same for the same images."""

from __future__ import annotations

import hashlib
import heapq


class HashSample:
    """The images whose URIs have the smallest hashes.

    An image that a list names several times is in it once, so such a list has as large a sample as any other.

    Args:
      size: how many, at most.
    """

    def __init__(self, size: int):
        self._size = size
        self._largest_first: list[tuple[int, str]] = []
        self._times: dict[str, int] = {}  # of those that are in the sample now

    def offer(self, location: str, uri: str) -> None:
        """Takes an image into account.

        Args:
          location: of the image.
          uri: as it stands in its list.
        """
        if location in self._times:
            self._times[location] += 1
            return
        rank = -int.from_bytes(hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest()[:8], "big")
        self._times[location] = 1
        if len(self._largest_first) < self._size:
            heapq.heappush(self._largest_first, (rank, location))
        else:
            _, dropped = heapq.heappushpop(self._largest_first, (rank, location))
            del self._times[dropped]

    def locations(self) -> dict[str, int]:
        """The images, and how often each was offered: once dropped, an image never comes in again."""
        return {location: self._times[location] for _, location in sorted(self._largest_first, reverse=True)}
