"""Counts which files of a folder become pixels, and why the others do not, beside what Pillow makes of them.

    python -m benchmarks.formats FOLDER

The folder may hold anything, for example the test images of Pillow (Tests/images of its repository). Pillow gets the
pixels and this project's decoder too, in its confined process. Every file ends in one line of the table. What Pillow
loads and the decoder does not is listed with the reason.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import sys
import warnings

from PIL import Image

from preprocess.images.decode import MAX_IMAGE_PIXELS, ImageError
from preprocess.images.isolated_decoder import IsolatedDecoder


def pillow_loads(data: bytes) -> str | None:
    """The name of the format as which Pillow loads the bytes of a file completely; None if it does not."""
    # Set again for each call, because `preprocess.images.decode` turns this limit off.
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS // 2  # Pillow refuses twice as many
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            image.load()
            return image.format
    except Exception:  # readers raise many types
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = None


def outcomes(folder: str) -> dict[str, tuple[str | None, str, str]]:
    """For each file below a folder: the format if Pillow loads it; "pixels" or the reason; the reason's message."""
    decoder = IsolatedDecoder()
    found = {}
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                data = stream.read()
            try:
                decoder(data)
                ours, message = "pixels", ""
            except ImageError as error:
                ours, message = error.reason, error.message
            found[os.path.relpath(path, folder)] = (pillow_loads(data), ours, message)
    return found


def main(argv: list[str] | None = None) -> None:
    """Prints the table and the list."""
    parser = argparse.ArgumentParser(description="Counts which files of a folder become pixels.")
    parser.add_argument("folder")
    found = outcomes(parser.parse_args(argv).folder)
    counts = collections.Counter((loaded is not None, ours) for loaded, ours, _ in found.values())
    print(f"{len(found)} files, {sum(loaded is not None for loaded, _, _ in found.values())} of which Pillow loads")
    for is_loaded in (True, False):
        print(f"Pillow {'loads' if is_loaded else 'does not load'}:")
        for (loaded, ours), number in sorted(counts.items(), key=lambda item: -item[1]):
            if loaded == is_loaded:
                print(f"{number:8,} {ours}")
    print("Pillow loads, and the decoder does not:")
    for path, (name, ours, message) in found.items():
        if name is not None and ours != "pixels":
            print(f"    {path} ({name}): {ours}: {message}")


if __name__ == "__main__":
    main(sys.argv[1:])
