"""The output folder: a model and its metrics appear together and complete, or not at all."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from configs.errors import InputError
from preprocess.locks.output_lock import confirm_held
from trainer.data.corrected import LEDGER_NAME
from trainer.data.shared_images import SHARED_IMAGES_NAME
from trainer.export.model_info import MODEL_INFO_PATH
from trainer.storage.files import cause_of
from trainer.storage.working_folder import working_folder

METRICS_NAME = "metrics.json"
MODEL_NAME = "model"
REPORT_NAME = "report.html"
PREDICTIONS_NAME = "predictions.csv"
# Of a model that was not good enough to be exported: its metrics and its report. An older model keeps its own.
REFUSED_NAME = "refused"
# If a folder holds this file, TensorFlow treats the folder as a model.
GRAPH_NAME = "saved_model.pb"
_ABOUT_THE_MODEL = (METRICS_NAME, REPORT_NAME, PREDICTIONS_NAME, SHARED_IMAGES_NAME, LEDGER_NAME)
_PARTIAL_MODEL = "model.partial"
_PREVIOUS_MODEL = "model.previous"


class OutputFolder:
    """The folder of a training run. An earlier model and its metrics stay until the new ones are complete.

    If the folder is in a bucket, the new files also stay on a local disk from `publish` until this object is deleted.
    They take about 100 MB for Inception v3, and as much again for each further format.
    """

    def __init__(self, path: str):
        """Creates the folder.

        Raises:
          InputError: the folder cannot be created or is not writable; or it holds something named `model` that this
            program did not make, and so must not replace.
        """
        self._folder = working_folder(path, flag="output_path")
        self._folder.require_writable()
        if self._folder.exists(MODEL_NAME) and not self._folder.exists(posixpath.join(MODEL_NAME, MODEL_INFO_PATH)):
            raise InputError(
                f"--output_path: {self.model_dir} is there already and is not a model of an earlier run, "
                "so it is not replaced. Choose another folder."
            )
        try:
            # An earlier run may have been killed while it replaced its model.
            if os.path.exists(self._local(_PREVIOUS_MODEL)) and not os.path.exists(self.local_model_dir):
                os.rename(self._local(_PREVIOUS_MODEL), self.local_model_dir)
                self._folder.sync()
            self._remove(_PARTIAL_MODEL)
            self._remove(_PREVIOUS_MODEL)
            for name in _ABOUT_THE_MODEL:  # A run that was killed may have left them.
                self._remove(f"{name}.partial")
        except OSError as error:
            raise InputError(f"--output_path: cannot write to {path}: {cause_of(error)}") from error

    def _local(self, name: str) -> str:
        return os.path.join(self._folder.local, name)

    def _remove(self, name: str) -> None:
        path = self._local(name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)

    @property
    def model_dir(self) -> str:
        """The folder of the SavedModel."""
        return posixpath.join(self._folder.path, MODEL_NAME)

    @property
    def local_model_dir(self) -> str:
        """A local folder with the same files, after `publish`."""
        return self._local(MODEL_NAME)

    @property
    def metrics_path(self) -> str:
        """The path of the metrics of that model."""
        return posixpath.join(self._folder.path, METRICS_NAME)

    @property
    def report_path(self) -> str:
        """The path of the report about that model."""
        return posixpath.join(self._folder.path, REPORT_NAME)

    def publish(
        self,
        write_model: Callable[[str], None],
        metrics: dict[str, Any],
        files: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        """Replaces the model, the metrics and the other files about the model.

        At every moment, visible metrics belong to the visible model; while the model is replaced, there are no metrics.
        The same is true for the other files; files that this run does not write are removed. This is also true after a
        power cut: the new files are synced before the old ones are removed, and each step is synced before the next.

        Args:
          write_model: called with the path of a new local folder, which it fills.
          metrics: JSON. It is written after `write_model` has returned, so `write_model` may add to it.
          files: maps names in `_ABOUT_THE_MODEL` to a function that writes the file to a path. These functions
            are called after `write_model`.

        Raises:
          InputError: the folder is no longer writable, or another run has taken it over.
        """
        with self._folder.writing():
            self._replace(write_model, metrics, files or {})
        graph = posixpath.join(MODEL_NAME, GRAPH_NAME)
        self._folder.send(rank=_rank, withdraw=(*_ABOUT_THE_MODEL, graph), exactly=[MODEL_NAME])
        self._folder.discard(REFUSED_NAME)

    def refuse(self, metrics: dict[str, Any], files: Mapping[str, Callable[[str], None]]) -> str:
        """Keeps the numbers of a model that is not exported, in a folder of their own. An older model stays untouched.

        Args:
          metrics: JSON.
          files: maps names to a function that writes the file to a path.

        Returns:
          The path of the folder.

        Raises:
          InputError: the folder is no longer writable, or another run has taken it over.
        """
        with self._folder.writing():
            folder = self._local(REFUSED_NAME)
            os.makedirs(folder, exist_ok=True)
            for name in _ABOUT_THE_MODEL:  # of another refused model
                if name not in files and name != METRICS_NAME:
                    self._remove(posixpath.join(REFUSED_NAME, name))
            for name, write in (*files.items(), (METRICS_NAME, lambda path: write_json(path, metrics))):
                write(os.path.join(folder, f"{name}.partial"))
                os.replace(os.path.join(folder, f"{name}.partial"), os.path.join(folder, name))
            self._folder.sync(REFUSED_NAME)
        self._folder.send(exactly=(REFUSED_NAME,))
        return posixpath.join(self._folder.path, REFUSED_NAME)

    def _replace(
        self,
        write_model: Callable[[str], None],
        metrics: dict[str, Any],
        files: Mapping[str, Callable[[str], None]],
    ) -> None:
        """The part of `publish` that runs on the local disk."""
        write_model(self._local(_PARTIAL_MODEL))
        for name, write in files.items():
            write(self._local(f"{name}.partial"))
        write_json(self._local(f"{METRICS_NAME}.partial"), metrics)
        names = (*files, METRICS_NAME)
        self._folder.sync(_PARTIAL_MODEL, *(f"{name}.partial" for name in names))
        confirm_held()
        for name in _ABOUT_THE_MODEL:
            self._remove(name)
        self._folder.sync()
        if os.path.exists(self.local_model_dir):
            os.rename(self.local_model_dir, self._local(_PREVIOUS_MODEL))
        os.rename(self._local(_PARTIAL_MODEL), self.local_model_dir)
        self._folder.sync()
        for name in names:
            os.replace(self._local(f"{name}.partial"), self._local(name))
        self._folder.sync()
        self._remove(_PREVIOUS_MODEL)


def _rank(name: str) -> int:
    """The rank of a file, from its path: a bucket gets the model and the files about it in the order of ranks."""
    if name.endswith(MODEL_INFO_PATH):
        return 0  # If this run is killed now, a later run recognizes by this file that the model is ours.
    if name in _ABOUT_THE_MODEL:
        return 4 if name == METRICS_NAME else 3
    return 2 if posixpath.basename(name) == GRAPH_NAME else 1


def copy_model(source: str, target: str) -> None:
    """Copies an exported model to another folder. The file by which TensorFlow recognizes a model is written last.

    On a local disk, a power cut cannot leave that file without the others.

    Args:
      source: a local folder.
      target: a folder, local or gs://. Other files in it stay.

    Raises:
      InputError: the folder is not writable.
    """
    folder = working_folder(target, flag="export_dir")
    folder.require_writable()
    try:
        graph = os.path.join(folder.local, GRAPH_NAME)
        if os.path.exists(graph):  # It belongs to an earlier model, whose other files are replaced next.
            os.remove(graph)
            folder.sync()
        files = [os.path.join(parent, name) for parent, _, names in os.walk(source) for name in names]
        copied = [os.path.relpath(path, source) for path in files]
        for name in sorted(copied, key=lambda name: name == GRAPH_NAME):
            copy = os.path.join(folder.local, name)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            if name == GRAPH_NAME:
                folder.sync(*{one.partition(os.sep)[0] for one in copied if one != GRAPH_NAME})
            shutil.copyfile(os.path.join(source, name), copy)
        folder.sync(GRAPH_NAME)
    except OSError as error:
        raise InputError(f"--export_dir: cannot write to {target}: {cause_of(error)}") from error
    folder.send(rank=_rank, withdraw=[GRAPH_NAME])


def write_json(path: str, value: dict[str, Any]) -> None:
    """Writes JSON to a local file, indented so that a person can read it."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
