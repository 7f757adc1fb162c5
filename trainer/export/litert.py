"""LiteRT, once TensorFlow Lite: the model for phones and small devices."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
import zipfile

import numpy as np
import tensorflow as tf

from trainer.export.model_info import ModelInfo
from trainer.export.pixel_classifier import PixelClassifier, input_name


def convert(classifier: PixelClassifier, info: ModelInfo) -> bytes:
    """A `.tflite` file: `PixelClassifier` in float32, any batch size.

    What it is lies in the file itself: LiteRT's convention is a ZIP archive after the model, so `unzip model.tflite`
    gives `labels.txt`, which the tools for Android and iOS look for, and `model.json`.
    """
    # By way of a SavedModel: made from a function alone, the model loses the names of its input and outputs.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        tf.saved_model.save(classifier, folder, signatures=classifier.classify)
        model = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    content = io.BytesIO(model)
    described = {**info.to_json(), "input": input_name(info)}
    with zipfile.ZipFile(content, "a") as archive:
        for name, text in (
            ("labels.txt", "".join(f"{label}\n" for label in info.labels)),
            ("model.json", json.dumps(described, indent=2, ensure_ascii=False)),
        ):
            archive.writestr(zipfile.ZipInfo(name), text)  # a ZipInfo has a fixed date: the same model, the same file
    return content.getvalue()


class Runner:
    """A converted model, ready to run."""

    def __init__(self, model: bytes, info: ModelInfo):
        with warnings.catch_warnings():
            # It advises a package that has the same interpreter, from the release after next.
            warnings.simplefilter("ignore")
            self._interpreter = tf.lite.Interpreter(model_content=model)
        self._signature = self._interpreter.get_signature_runner()
        self._input = input_name(info)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """Pixels or embeddings, as the model takes them, to float32 [n, num_labels]."""
        return self._signature(**{self._input: inputs})["scores"]
