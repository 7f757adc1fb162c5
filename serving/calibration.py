"""The images that int8 is calibrated on, for a server: a sample of the photos or lists that `--calibrate_with` names.

Of the list that made the records of the model's training, it is the sample that `hugs embed --precision int8` took. So
the server finds the int8 network that was made then, in the cache of this machine, and computes as it did.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.activity import doing
from configs.errors import InputError
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.images.hash_sample import HashSample
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader, LoadedImage
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.retry import RetryPolicy
from trainer.export.model_info import ModelInfo
from trainer.photo_reader import named_photos, read_photo

_FLAG = "--calibrate_with"
# Photos that are read and decoded ahead: 0.27 MB each.
_MAX_AHEAD = 64
# A read that takes longer is tried again in another thread. Storage retries come on top.
_READ_DEADLINE_SEC = 60.0


def calibration_pixels(names: Sequence[str], info: ModelInfo) -> np.ndarray:
    """Reads a sample of some photos.

    Args:
      names: lists, photos, folders and globs.
      info: of the model.

    Returns:
      uint8 [n, size, size, 3]; photos that cannot be read are left out.

    Raises:
      InputError: a folder has no photo in it, nothing matches a glob, or storage failed.
    """
    sample = HashSample(CALIBRATION_IMAGES)
    for uri, location in named_photos(names, info.labels, flag=_FLAG, must_exist=True):
        sample.offer(location, uri)
    locations = sample.locations()
    loader = ImageLoader(
        read=read_photo,
        decode=IsolatedDecoder(size=info.image.size),
        max_ahead=_MAX_AHEAD,
        deadline_sec=_READ_DEADLINE_SEC + RetryPolicy().limit_sec,
    )
    loader.add(locations)
    pixels = []
    with doing("reading images to calibrate int8 with", total=len(locations), unit="image") as reading:
        for _ in locations:
            try:
                image = loader.next()
            except MachineFault as fault:
                raise InputError(f"{_FLAG}: {fault}") from fault
            if isinstance(image, LoadedImage):
                pixels.append(image.pixels)
            reading.advance()
    return np.stack(pixels) if pixels else np.empty((0, info.image.size, info.image.size, 3), np.uint8)
