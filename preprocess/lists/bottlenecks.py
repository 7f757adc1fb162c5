"""Reads bottlenecks: the embeddings that TensorFlow's `retrain.py` cached as text, one file for each image.

The file of `roses/a.jpg` is `BOTTLENECK_DIR/roses/a.jpg_inception_v3.txt`: one line of numbers, separated by commas.
The first versions of `retrain.py` knew one network, Inception v3, and did not name it: `roses/a.jpg.txt`. Later ones
name a module of TensorFlow Hub by its address, with "~" in place of "://", "/" and ":".
(https://github.com/tensorflow/hub/blob/master/examples/image_retraining/retrain.py, `get_bottleneck_path`)
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from preprocess.lists.outcomes import RowFailure, RowSkip

if TYPE_CHECKING:
    import numpy as np

FIRST_ARCHITECTURE = "inception_v3"
"""The network of bottlenecks that name none."""

SKIP_NOT_A_BOTTLENECK = "not_a_bottleneck"
SKIP_NOT_IN_A_LABEL_FOLDER = "not_in_a_label_folder"
SKIP_OTHER_ARCHITECTURE = "other_architecture"

# The name of the image is as long as possible: an image may be called a.jpg_b.jpg.
_NAME = re.compile(r"(?P<image>.+\.(?:jpe?g|png|gif|bmp|webp|tiff?))(?:_(?P<architecture>.+))?\.txt", re.I | re.S)
# `retrain.py`, MAX_NUM_IMAGES_PER_CLASS.
_MAX_IMAGES = 2**27 - 1
# A hundred thousand numbers; a longer file is no bottleneck.
MAX_BOTTLENECK_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckFile:
    """A file in a folder of bottlenecks.

    Attributes:
      path: below the folder, with "/" between its parts.
      label: the name of its label's folder; empty if it is in none.
      image: the file name of the image; empty if the name is not that of a bottleneck.
      architecture: the network that its name says.
      skip: why it is no bottleneck; None if it is one by its name.
    """

    path: str
    label: str = ""
    image: str = ""
    architecture: str = ""
    skip: RowSkip | None = None


def find_bottlenecks(folder: str) -> Iterator[BottleneckFile]:
    """All files below a local folder, in the order of their paths. Raises OSError if a folder cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_dir():  # A link to a folder is one.
                yield _described("", entry.name)
                continue
            for parent, folders, names in os.walk(entry.path, onerror=refuse):
                folders.sort()
                below = os.path.relpath(parent, folder).replace(os.sep, "/")
                # Links to folders further down are not followed, since they may lead back here.
                links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
                for name in sorted([*names, *links]):
                    yield _described(below, name)


def _described(below: str, name: str) -> BottleneckFile:
    path = f"{below}/{name}" if below else name
    if not below or "/" in below:
        message = f"{path}: a bottleneck lies in the folder of its label, LABEL/IMAGE_ARCHITECTURE.txt"
        return BottleneckFile(path=path, skip=RowSkip(SKIP_NOT_IN_A_LABEL_FOLDER, message))
    match = _NAME.fullmatch(name)
    if match is None:
        message = f"{path}: is not named like a bottleneck, IMAGE_ARCHITECTURE.txt"
        return BottleneckFile(path=path, label=below, skip=RowSkip(SKIP_NOT_A_BOTTLENECK, message))
    architecture = match["architecture"] or FIRST_ARCHITECTURE
    return BottleneckFile(path=path, label=below, image=match["image"], architecture=architecture)


def parse_bottleneck(data: bytes, *, where: str) -> np.ndarray:
    """Reads the content of a file.

    Args:
      data: the content.
      where: the file, for messages.

    Returns:
      float32 [n], finite and not all zero; n is at least 1.

    Raises:
      RowFailure: it holds something else.
    """
    import numpy as np  # here: it takes longer than the rest of `--help`

    if not data.strip():
        raise RowFailure("parse", "empty_file", f"{where}: is empty")
    cells = data.strip().split(b",")
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        wrong = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        shown = cells[wrong][:40].decode("utf-8", "backslashreplace")
        raise RowFailure("parse", "not_a_number", f"{where}: number {wrong + 1} is {shown!r}") from None
    with np.errstate(over="ignore"):
        embedding = values.astype(np.float32)
    if not np.isfinite(embedding).all():
        wrong = int(np.flatnonzero(~np.isfinite(embedding))[0])
        shown = cells[wrong][:40].decode("utf-8", "backslashreplace")
        raise RowFailure("parse", "not_finite", f"{where}: number {wrong + 1} is {shown}, not a finite float32")
    if not embedding.any():
        raise RowFailure("parse", "all_zero", f"{where}: all {len(embedding)} numbers are 0")
    return embedding


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def retrain_split(image_path: str, *, eval_percent: float, test_percent: float) -> str:
    """The list to which `retrain.py` assigned an image: "train", "eval" (its validation) or "test".

    It hashed the whole path that it saw, without "_nohash_" and what follows (`retrain.py`, `create_image_lists`).

    Args:
      image_path: the path of the image as `retrain.py` saw it, IMAGE_DIR/LABEL/IMAGE.
      eval_percent: its `--validation_percentage`.
      test_percent: its `--testing_percentage`.
    """
    name = re.sub(r"_nohash_.*$", "", image_path)
    digest = int(hashlib.sha1(os.fsencode(name)).hexdigest(), 16)
    percent = (digest % (_MAX_IMAGES + 1)) * (100.0 / _MAX_IMAGES)
    if percent < eval_percent:
        return "eval"
    return "test" if percent < eval_percent + test_percent else "train"
