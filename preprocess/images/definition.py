"""The parameters of the definition of an image: the size of the square, and how its pixels become numbers.

`preprocess.images.decode` makes the pixels (uint8), and `preprocess.images.decode_graph` does the same in TensorFlow
and scales them. Both take the parameters from here, so a network sees the same numbers in the pipeline, in the exported
model and in every client. `ImageDefinition.name` is stored with the embeddings and in the model.
"""

from __future__ import annotations

import dataclasses
import re

from configs.errors import InputError, did_you_mean
from preprocess.images.decode import IMAGE_DEFINITION, IMAGE_SIZE

# Large enough for any network of Keras; the pixels of 128 images are held at once (3 MB each at this size).
MAX_IMAGE_SIZE = 1024
VERSION = int(IMAGE_DEFINITION.rpartition("/")[2])

DEFAULT_SCALING = "tf"
# Keras's names of its ways of scaling (`keras.applications.imagenet_utils.preprocess_input`), and two more.
SCALINGS = {
    "tf": "x / 127.5 - 1, from -1 to 1",
    "torch": "(x / 255 - mean) / standard deviation of ImageNet's channels",
    "caffe": "BGR, less ImageNet's mean of each channel",
    "unit": "x / 255, from 0 to 1",
    "none": "0 to 255; the network scales by itself",
}
SCALING_WORDS = f"{', '.join(SCALINGS)}, or MEAN,STD for (x - MEAN) / STD, for example 127,128"

_NAME = re.compile(r"upright-rgb-(\d+)-bilinear/(\d+)(?:\+(.+))?")
_MEAN_STD = re.compile(r"(-?\d+(?:\.\d+)?),(\d+(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDefinition:
    """How an image file becomes the input of a network.

    Attributes:
      size: the side of the square, in pixels.
      scaling: a key of `SCALINGS`, or "MEAN,STD".

    Raises:
      InputError: a value is out of range.
    """

    size: int = IMAGE_SIZE
    scaling: str = DEFAULT_SCALING

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MAX_IMAGE_SIZE:
            raise InputError(f"image_size: must be from 8 to {MAX_IMAGE_SIZE}. Received: {self.size}.")
        if self.scaling not in SCALINGS and mean_and_std(self.scaling) is None:
            raise InputError(
                f"scaling: must be {SCALING_WORDS}.{did_you_mean(self.scaling, SCALINGS)} Received: {self.scaling!r}."
            )

    @property
    def name(self) -> str:
        """Its name, for example "upright-rgb-299-bilinear/2". The scaling is in it unless it is the default."""
        scaling = "" if self.scaling == DEFAULT_SCALING else f"+{self.scaling}"
        return f"upright-rgb-{self.size}-bilinear/{VERSION}{scaling}"

    @classmethod
    def named(cls, name: str, *, where: str = "image_definition") -> ImageDefinition:
        """Reads what `name` gave.

        Raises:
          InputError: this version has no such definition; `where` says in the message where the name stands.
        """
        match = _NAME.fullmatch(name)
        if match is None or int(match[2]) != VERSION:
            raise InputError(f"{where}: this version does not know the definition of an image {name!r}. Embed again.")
        return cls(size=int(match[1]), scaling=match[3] or DEFAULT_SCALING)


def mean_and_std(scaling: str) -> tuple[float, float] | None:
    """The numbers of a scaling "MEAN,STD"; None if it is no such scaling."""
    match = _MEAN_STD.fullmatch(scaling)
    if match is None or float(match[2]) == 0:
        return None
    return float(match[1]), float(match[2])
