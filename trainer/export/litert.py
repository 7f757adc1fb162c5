"""LiteRT (formerly TensorFlow Lite): the model for phones and small devices."""

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
    """Makes a `.tflite` file of `PixelClassifier`, in float32, for any batch size.

    The file also holds the description of the model. By LiteRT's convention, a ZIP archive follows the model, so
    `unzip model.tflite` gives `model.json` and `labels.txt`, which tools for Android and iOS expect.
    """
    # The conversion starts from a SavedModel. From a function alone, the names of the input and the outputs are lost.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        without_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(classifier, folder, signatures=classifier.classify, options=without_gradients)
        model = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    content = io.BytesIO(model)
    described = {**info.to_json(), "input": input_name(info)}
    with zipfile.ZipFile(content, "a") as archive:
        for name, text in (
            ("labels.txt", "".join(f"{label}\n" for label in info.labels)),
            ("model.json", json.dumps(described, indent=2, ensure_ascii=False)),
        ):
            # A ZipInfo has a fixed date, so the same model gives the same file.
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


class Runner:
    """A converted model, ready to run."""

    def __init__(self, model: bytes, info: ModelInfo):
        with warnings.catch_warnings():
            # TensorFlow warns that the interpreter will move to another package in a later release.
            warnings.simplefilter("ignore")
            self._interpreter = tf.lite.Interpreter(model_content=model)
        self._signature = self._interpreter.get_signature_runner()
        self._input = input_name(info)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """The scores, float32 [n, num_labels], for the pixels or embeddings that the model takes."""
        return self._signature(**{self._input: inputs})["scores"]
