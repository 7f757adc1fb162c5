"""The views of an image: the image itself, and images drawn from it, each with an embedding in the record.

View 0 is the image. The others are what TensorFlow's `retrain.py` (2015 to 2018, `add_input_distortions`) made in every
training step: the image is resized to (1 + crop/100) * U(1, 1 + scale/100) times the size that the network takes, a
square of that size is cut out at random, mirrored with probability 1/2, and multiplied by
U(1 - brightness/100, 1 + brightness/100), which is not clipped.

The random numbers of a view are a hash of the content of the image and of the number of the view. So a view has the
same bytes on every worker, in every order, and in a run that goes on where another was stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

# A change to the random numbers of a view must change this text, which is a part of what is hashed.
_HASHED = b"view/1"
# Of the 64 bits of a random number as many as a float64 can hold.
_BITS = 53


class ViewParameters(Protocol):
    """What options say about views, as `configs.view_options.ViewOptions` has it."""

    @property
    def views(self) -> int:
        """The number of views."""

    @property
    def flip_left_right(self) -> bool:
        """As in `Views`."""

    @property
    def random_crop(self) -> float:
        """As in `Views`."""

    @property
    def random_scale(self) -> float:
        """As in `Views`."""

    @property
    def random_brightness(self) -> float:
        """As in `Views`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Distortion:
    """How one view is made from the decoded image.

    Attributes:
      side: the side of the square to which the image is resized, in pixels; at least the size that the network takes.
      left: columns of the square to the left of what is cut out.
      top: rows of the square above what is cut out.
      mirrored: whether what was cut out is mirrored.
      brightness: the factor on its pixels. It is not applied to uint8 pixels, but to the numbers that engines make of
        them, so nothing is rounded or clipped.
    """

    side: int
    left: int
    top: int
    mirrored: bool
    brightness: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """Several views of each image of a set.

    Attributes:
      count: the number of views with view 0; at least 2.
      flip_left_right: whether views are mirrored with probability 1/2.
      random_crop: percent by which the image is larger than what is cut out.
      random_scale: percent by which the image is enlarged further, at most.
      random_brightness: percent by which pixels become darker or brighter, at most.
    """

    count: int
    flip_left_right: bool = False
    random_crop: float = 0.0
    random_scale: float = 0.0
    random_brightness: float = 0.0

    @classmethod
    def of_options(cls, options: ViewParameters) -> Views | None:
        """The views that options describe; None for one view."""
        if options.views == 1:
            return None
        return cls(
            count=options.views,
            flip_left_right=options.flip_left_right,
            random_crop=options.random_crop,
            random_scale=options.random_scale,
            random_brightness=options.random_brightness,
        )

    def describe(self) -> str:
        """For people, for example "4 views (mirrored, crop 10 %)"."""
        how = ["mirrored"] if self.flip_left_right else []
        percents = {"crop": self.random_crop, "scale": self.random_scale, "brightness": self.random_brightness}
        how += [f"{name} {percent:g} %" for name, percent in percents.items() if percent]
        return f"{self.count} views ({', '.join(how) or 'not distorted'})"

    @property
    def largest_side(self) -> float:
        """The largest side of the square of a view, as a multiple of the size that the network takes."""
        return (1 + self.random_crop / 100) * (1 + self.random_scale / 100)

    def distortion(self, image_sha256: bytes, view: int, *, size: int) -> Distortion:
        """How a view of an image is made.

        Args:
          image_sha256: the SHA-256 of the image file, 32 bytes.
          view: the number of the view, from 1.
          size: the side of the square that the network takes, in pixels.
        """
        hashed = hashlib.sha512(_HASHED + image_sha256 + view.to_bytes(4, "big")).digest()
        # Five of eight numbers. The number of a view's option must never change.
        scale, left, top, mirror, brightness = (_uniform(hashed[8 * at : 8 * at + 8]) for at in range(5))
        # Rounded down, as the cast to int32 in retrain.py does. No rounding error makes it smaller than `size`.
        larger = (1 + self.random_crop / 100) * (1 + scale * self.random_scale / 100)
        side = int(size * larger + 1e-9)
        places = side - size + 1
        return Distortion(
            side=side,
            left=int(left * places),
            top=int(top * places),
            mirrored=self.flip_left_right and mirror < 0.5,
            brightness=1 + (2 * brightness - 1) * self.random_brightness / 100,
        )

    def distortions(self, image_sha256: bytes, *, size: int) -> tuple[Distortion, ...]:
        """How views 1 to `count` - 1 of an image are made; the arguments are those of `distortion`."""
        return tuple(self.distortion(image_sha256, view, size=size) for view in range(1, self.count))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Views | None:
        """Reads what `to_json` gives, or None.

        Raises:
          TypeError, ValueError: it is something else.
        """
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise TypeError(f"an object or null is wanted, not {data!r}")
        views = cls(**data)
        if type(views.count) is not int or not isinstance(views.flip_left_right, bool):
            raise TypeError(f"a number of views and true or false are wanted, not {data!r}")
        if views.count < 2:
            raise ValueError(f"one view is written as null, not as {views.count!r}")
        for percent in (views.random_crop, views.random_scale, views.random_brightness):
            if type(percent) not in (int, float):
                raise TypeError(f"percent are wanted, not {percent!r}")
            if not 0 <= percent < 100:
                raise ValueError(f"percent from 0 to 99 are wanted, not {percent!r}")
        return views


def _uniform(eight_bytes: bytes) -> float:
    """A number in [0, 1) from 64 random bits."""
    return (int.from_bytes(eight_bytes, "big") >> (64 - _BITS)) / 2**_BITS
