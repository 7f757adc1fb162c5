"""Paths for TensorFlow, which takes the name of a checkpoint or a model that it reads for a pattern."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from preprocess.storage.scratch import scratch_folder

_WILDCARDS = "*?[\\"


@contextlib.contextmanager
def path_for_tensorflow(path: str) -> Iterator[str]:
    """Gives a path of a local file or folder without wildcards, by way of a symbolic link if its own has some.

    `tf.saved_model.load` and `tf.train.load_checkpoint` find nothing in a folder `photos [2023]`.

    Args:
      path: of a folder, or the prefix of the files of a checkpoint.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if not any(character in folder + name for character in _WILDCARDS):
        yield path
        return
    with scratch_folder() as scratch:
        link = os.path.join(scratch, "link")
        if os.path.isdir(path):
            os.symlink(os.path.join(folder, name), link)
            yield link
        else:
            os.symlink(folder, link)
            yield os.path.join(link, name)
