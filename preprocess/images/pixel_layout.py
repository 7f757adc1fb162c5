"""The layout of an image's pixels: which pictures are made of it, and where they lie in one array.

One backbone takes one square of an image, or several views of it. Backbones that share the decoding of an image may
take squares of several sizes. Then all pictures lie in one flat array, so that pipes, shared memory and loaders pass on
one array whatever is in it.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """The pictures that are made of each image.

    Attributes:
      sizes: the different sizes of squares, at least one.
      views: the number of views of each square.
    """

    sizes: tuple[int, ...]
    views: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array with all pixels of an image: that of its one square, or flat if there are several sizes."""
        return self._shape_of(self.sizes[0]) if len(self.sizes) == 1 else (self.num_bytes,)

    @property
    def num_bytes(self) -> int:
        """Bytes of all pixels of an image."""
        return sum(math.prod(self._shape_of(size)) for size in self.sizes)

    def square(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """The pixels of one of the squares, as a part of the array of all pixels.

        Args:
          pixels: all pixels of an image, uint8 `shape`.
          size: one of `sizes`.

        Returns:
          uint8 [size, size, 3]; with several views [views, size, size, 3].
        """
        if len(self.sizes) == 1:
            return pixels
        before = self.sizes[: self.sizes.index(size)]
        start = sum(math.prod(self._shape_of(other)) for other in before)
        shape = self._shape_of(size)
        return pixels[start : start + math.prod(shape)].reshape(shape)

    def _shape_of(self, size: int) -> tuple[int, ...]:
        return (size, size, 3) if self.views == 1 else (self.views, size, size, 3)
