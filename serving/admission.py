"""Lets in as much work as the server takes at once: images, and bytes of bodies. The rest is refused at once."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from serving.refusals import RefusedError, busy

_LONGEST_WAIT_SEC = 60
# The share of the newest request in the average of how long requests take.
_NEWEST = 0.1


class Admission:
    """Counts the images and bytes in flight. All calls are made in the thread of one loop.

    Args:
      max_images: images in flight, at most. Since each waits for those before it, this bounds how long a request takes.
      max_bytes: bytes of bodies in memory, at most.
    """

    def __init__(self, *, max_images: int, max_bytes: int):
        self.max_images = max_images
        self._max_bytes = max_bytes
        self.images = 0
        self._bytes = 0
        self._usual_sec = 0.0

    @contextlib.contextmanager
    def images_in_flight(self, count: int) -> Iterator[None]:
        """Within this context, `count` images are in flight.

        Raises:
          RefusedError: they would be too many, now or ever.
        """
        if count > self.max_images:
            raise RefusedError(413, f"A request may have at most {self.max_images} images. Received: {count}.")
        if self.images + count > self.max_images:
            raise busy(self._seconds_until_free())
        self.images += count
        started = time.monotonic()
        try:
            yield
        finally:
            self.images -= count
            self._usual_sec += _NEWEST * (time.monotonic() - started - self._usual_sec)

    def _seconds_until_free(self) -> int:
        """A request that comes now would find room when those before it are done, which takes as long as usual."""
        return max(1, min(_LONGEST_WAIT_SEC, math.ceil(self._usual_sec)))

    def take_bytes(self, count: int) -> None:
        """Notes bytes of a body in memory. Raises RefusedError if there is no room for them."""
        if self._bytes + count > self._max_bytes:
            raise busy(self._seconds_until_free())
        self._bytes += count

    def give_bytes(self, count: int) -> None:
        """Notes that bytes of a body are no longer needed."""
        self._bytes -= count
