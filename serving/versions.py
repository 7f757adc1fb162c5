"""Finds the versions of a model in its folder, which may be a model itself, or hold numbered versions of it."""

from __future__ import annotations

import glob
import hashlib
import posixpath
import re

from configs.errors import InputError
from trainer.export.classifier import read_model_info
from trainer.export.model_info import MODEL_INFO_PATH
from trainer.storage.files import cause_of, storage

# As TensorFlow Serving names them: an int64.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class VersionFinder:
    """Looks into the folder of a model, again and again.

    A folder of numbered versions is what TensorFlow Serving reads. If the folder is a model itself, it is version 1; if
    another model lies there later, that is version 2, and so on.

    Args:
      model_dir: the folder, local or in a bucket.
    """

    def __init__(self, model_dir: str):
        self._model_dir = model_dir.rstrip("/") or "/"
        self._own_versions: list[str] = []

    def find(self) -> dict[int, tuple[str, str]]:
        """The versions that are there: the folder of each, and the digest of its description.

        Raises:
          InputError: the folder does not exist, holds no version, or cannot be read.
        """
        try:
            return self._find()
        except OSError as error:
            raise InputError(f"model_dir: cannot read {self._model_dir} ({cause_of(error)}).") from error

    def _find(self) -> dict[int, tuple[str, str]]:
        pattern = posixpath.join(glob.escape(self._model_dir), "*", MODEL_INFO_PATH)
        found = {}
        for path in storage().match(pattern):
            folder = path.removesuffix(f"/{MODEL_INFO_PATH}")
            number = posixpath.basename(folder)
            if _NUMBER.fullmatch(number):
                found[int(number)] = (folder, self._digest(path))
        if found:
            return found
        read_model_info(self._model_dir)  # It says what is wrong if this is no model.
        digest = self._digest(posixpath.join(self._model_dir, MODEL_INFO_PATH))
        if digest not in self._own_versions[-1:]:
            self._own_versions.append(digest)
        return {len(self._own_versions): (self._model_dir, digest)}

    @staticmethod
    def _digest(path: str) -> str:
        return hashlib.sha256(storage().read(path)).hexdigest()
