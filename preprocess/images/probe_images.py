"""Twelve synthetic photos on which engines and precisions are compared before the user's first image is read.

The comparison needs images whose spectrum and colours are similar to photos, because a network reacts differently to
white noise. The images must be the same on every machine, without files.
"""

from __future__ import annotations

import numpy as np

from preprocess.images.decode import IMAGE_SIZE

# A change to the images must change this number, because measurements on them are cached between runs.
PROBE_VERSION = 1


def probe_images(count: int = 12, *, size: int = IMAGE_SIZE) -> np.ndarray:
    """Draws the images.

    Returns:
      uint8 [count, size, size, 3].
    """
    return np.stack([_photo(np.random.RandomState(number), size) for number in range(count)])


def _photo(random: np.random.RandomState, size: int) -> np.ndarray:
    """A gradient between two colours, some shapes with soft edges on it, and noise with the spectrum of photos."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    angle = random.uniform(0, 2 * np.pi)
    along = 0.5 + 0.5 * (np.cos(angle) * (2 * rows - 1) + np.sin(angle) * (2 * columns - 1)) / np.sqrt(2)
    first, second = random.uniform(20, 235, (2, 3))
    image = first + along[..., np.newaxis] * (second - first)
    for _ in range(random.randint(2, 9)):
        row, column, height, width = random.uniform((0, 0, 0.05, 0.05), (1, 1, 0.4, 0.4))
        roundness = random.choice([2, 8])  # an ellipse, nearly a rectangle
        distance = np.abs((rows - row) / height) ** roundness + np.abs((columns - column) / width) ** roundness
        cover = 1 / (1 + np.exp(np.clip((distance - 1) * random.uniform(5, 80), -50, 50)))
        image += cover[..., np.newaxis] * (random.uniform(0, 255, 3) - image)
    image += _pink_noise(random, size) * random.uniform(5, 40)
    return np.clip(image, 0, 255).astype(np.uint8)


def _pink_noise(random: np.random.RandomState, size: int) -> np.ndarray:
    """Noise whose amplitude falls as 1/f, as in photos, mostly grey: [size, size, 3], standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    white = random.standard_normal((4, size, size))
    grey, *colours = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    noise = np.stack([grey + 0.3 * colour for colour in colours], axis=-1)
    return noise / noise.std()
