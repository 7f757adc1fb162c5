"""Reads the files that an exported model has beside its graph."""

from __future__ import annotations

import posixpath

from configs.errors import InputError
from trainer.storage.files import cause_of, storage


def read_model_file(model_dir: str, name: str, *, flag: str = "model_dir") -> tuple[str, bytes]:
    """Reads a file that later versions write into every model.

    Args:
      model_dir: the folder of the model, local or in a bucket.
      name: of the file, within the folder.
      flag: what named the folder, for the messages.

    Returns:
      The path and the content.

    Raises:
      InputError: the model was exported by an earlier version, or the file cannot be read.
    """
    path = posixpath.join(model_dir, name)
    try:
        return path, storage().read(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{flag}: {model_dir} was exported by an earlier version, which did not write {name}. Give the command of "
            "the training again. Checkpoints of earlier versions are not used, so this trains a new head."
        ) from error
    except OSError as error:
        raise InputError(f"{flag}: cannot read {path} ({cause_of(error)}).") from error
