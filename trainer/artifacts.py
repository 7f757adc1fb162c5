"""The output folder: a model and its metrics appear together and whole, or not at all."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from configs.errors import InputError
from trainer.model_info import MODEL_INFO_PATH

METRICS_NAME = "metrics.json"
MODEL_NAME = "model"
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
        except tf.errors.OpError as error:
            cause = (str(error.message).strip() or type(error).__name__).splitlines()[0]
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

    def publish(self, write_model: Callable[[str], None], metrics: dict[str, Any]) -> None:
        """Replaces model and metrics.

        At every moment the metrics that can be seen are those of the model beside them: between two models
        there are none.

        Args:
          write_model: called with the path of a new folder, which it fills.
          metrics: JSON; written after `write_model` has returned, which may still add to it.
        """
        gfile = tf.io.gfile
        write_model(self._child(_PARTIAL_MODEL))
        partial_metrics = f"{self.metrics_path}.partial"
        with gfile.GFile(partial_metrics, "w") as stream:
            stream.write(json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        if gfile.exists(self.metrics_path):
            gfile.remove(self.metrics_path)
        if gfile.exists(self.model_dir):
            gfile.rename(self.model_dir, self._child(_PREVIOUS_MODEL))
        gfile.rename(self._child(_PARTIAL_MODEL), self.model_dir)
        gfile.rename(partial_metrics, self.metrics_path, overwrite=True)
        self._remove(_PREVIOUS_MODEL)
