"""The output folder: a model and its metrics appear together and whole, or not at all."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from configs.errors import InputError, cause_in_one_line
from trainer.model_info import MODEL_INFO_PATH

METRICS_NAME = "metrics.json"
MODEL_NAME = "model"
REPORT_NAME = "report.html"
PREDICTIONS_NAME = "predictions.csv"
_PARTIAL_MODEL = "model.partial"
_PREVIOUS_MODEL = "model.previous"


class OutputFolder:
    """Where a training run writes. An earlier run's model and metrics stay until the new ones are whole."""

    def __init__(self, path: str):
        """Makes the folder.

        Raises:
          InputError: it cannot be made or written to, or holds something named `model` that is no model
            of ours and so must not be replaced.
        """
        self._path = path
        gfile = tf.io.gfile
        try:
            gfile.makedirs(path)
            probe = posixpath.join(path, f"{METRICS_NAME}.partial")
            with gfile.GFile(probe, "w") as stream:
                stream.write("")
            gfile.remove(probe)
            if gfile.exists(self.model_dir) and not gfile.exists(posixpath.join(self.model_dir, MODEL_INFO_PATH)):
                raise InputError(
                    f"--output_path: {self.model_dir} is there already and is not a model of an earlier run, "
                    "so it is not replaced. Choose another folder."
                )
            # An earlier run may have been killed while it replaced its model.
            if gfile.exists(self._child(_PREVIOUS_MODEL)) and not gfile.exists(self.model_dir):
                gfile.rename(self._child(_PREVIOUS_MODEL), self.model_dir)
            self._remove(_PARTIAL_MODEL)
            self._remove(_PREVIOUS_MODEL)
            for name in (METRICS_NAME, REPORT_NAME, PREDICTIONS_NAME):  # Of a run that was killed here.
                if gfile.exists(self._child(f"{name}.partial")):
                    gfile.remove(self._child(f"{name}.partial"))
        except tf.errors.OpError as error:
            cause = cause_in_one_line(error)
            raise InputError(f"--output_path: cannot write to {path}: {cause}") from error

    def _child(self, name: str) -> str:
        return posixpath.join(self._path, name)

    def _remove(self, name: str) -> None:
        if tf.io.gfile.exists(self._child(name)):
            tf.io.gfile.rmtree(self._child(name))

    @property
    def model_dir(self) -> str:
        """The folder of the SavedModel."""
        return self._child(MODEL_NAME)

    @property
    def metrics_path(self) -> str:
        """The metrics of that model."""
        return self._child(METRICS_NAME)

    @property
    def report_path(self) -> str:
        """The page about that model."""
        return self._child(REPORT_NAME)

    def publish(
        self,
        write_model: Callable[[str], None],
        metrics: dict[str, Any],
        files: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        """Replaces model, metrics and the files about them.

        At every moment the metrics that can be seen are those of the model beside them: between two models
        there are none. The same holds for the other files; those that this run does not write are removed.

        Args:
          write_model: called with the path of a new folder, which it fills.
          metrics: JSON; written after `write_model` has returned, which may still add to it.
          files: `REPORT_NAME` or `PREDICTIONS_NAME`, and what writes the file to a path; called after `write_model`.
        """
        gfile = tf.io.gfile
        write_model(self._child(_PARTIAL_MODEL))
        files = files or {}
        for name, write in files.items():
            write(self._child(f"{name}.partial"))
        partial_metrics = f"{self.metrics_path}.partial"
        write_json(partial_metrics, metrics)
        for name in (METRICS_NAME, REPORT_NAME, PREDICTIONS_NAME):
            if gfile.exists(self._child(name)):
                gfile.remove(self._child(name))
        if gfile.exists(self.model_dir):
            gfile.rename(self.model_dir, self._child(_PREVIOUS_MODEL))
        gfile.rename(self._child(_PARTIAL_MODEL), self.model_dir)
        for name in files:
            gfile.rename(self._child(f"{name}.partial"), self._child(name), overwrite=True)
        gfile.rename(partial_metrics, self.metrics_path, overwrite=True)
        self._remove(_PREVIOUS_MODEL)


def copy_model(source: str, target: str) -> None:
    """Copies an exported model to another folder, the file that makes it a model last.

    Raises:
      InputError: the folder cannot be written to.
    """
    gfile = tf.io.gfile
    target = target.rstrip("/")
    try:
        files = [posixpath.join(folder, name) for folder, _, names in gfile.walk(source) for name in names]
        for path in sorted(files, key=lambda path: posixpath.basename(path) == "saved_model.pb"):
            copy = posixpath.join(target, posixpath.relpath(path, source))
            gfile.makedirs(posixpath.dirname(copy))
            gfile.copy(path, copy, overwrite=True)
    except tf.errors.OpError as error:
        cause = cause_in_one_line(error)
        raise InputError(f"--export_dir: cannot write to {target}: {cause}") from error


def write_json(path: str, value: dict[str, Any]) -> None:
    """Writes JSON that a person can read too."""
    with tf.io.gfile.GFile(path, "w") as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
