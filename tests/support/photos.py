"""A small data set in a directory: photos of noise, dict.txt and lists."""

import numpy as np
from PIL import Image


def write_photos(folder, rows, *, side, lists=("train",), broken=(), missing=()):
    """Writes lists of the rows `N.png,LABEL`, and their images but for some that are no image or not there."""
    (folder / "dict.txt").write_text("a\nb\n")
    random_numbers = np.random.default_rng(0)
    for number in range(rows):
        if number in broken:
            (folder / f"{number}.png").write_bytes(b"no image")
        elif number not in missing:
            pixels = random_numbers.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    for name in lists:
        (folder / f"{name}.csv").write_text("".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(rows)))
    return folder
