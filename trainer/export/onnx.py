"""ONNX: the model for ONNX Runtime, OpenVINO, TensorRT and other programs that read this format."""

from __future__ import annotations

import json
import logging
from types import ModuleType

import numpy as np

from configs.errors import InputError
from configs.install_hint import install_hint
from trainer.export.model_info import ModelInfo
from trainer.export.pixel_classifier import PixelClassifier, input_name

# The newest version that tf2onnx 1.17 writes.
_OPSET = 18


def require_packages() -> tuple[ModuleType, ModuleType]:
    """Imports the optional packages: tf2onnx, which converts, and ONNX Runtime, which runs the converted model.

    Raises:
      InputError: a package is not installed.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise InputError(
            f"--export_formats: onnx needs tf2onnx and onnxruntime, which cannot be imported ({error}). "
            f"{install_hint('export')} Or leave onnx out."
        ) from error
    return tf2onnx, onnxruntime


def convert(classifier: PixelClassifier, info: ModelInfo) -> bytes:
    """Makes an `.onnx` file of `PixelClassifier`, in float32, for any batch size.

    Its metadata hold `labels`, one label on each line, and `model.json`.

    Raises:
      InputError: a package is not installed.
    """
    tf2onnx, _ = require_packages()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(
        classifier.classify, input_signature=classifier.classify.input_signature, opset=_OPSET
    )
    described = {**info.to_json(), "input": input_name(info)}
    for key, value in (
        ("labels", "\n".join(info.labels)),
        ("model.json", json.dumps(described, ensure_ascii=False)),
    ):
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


class Runner:
    """A converted model, ready to run."""

    def __init__(self, model: bytes, info: ModelInfo):
        _, onnxruntime = require_packages()
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._input = input_name(info)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """The scores, float32 [n, num_labels], for the pixels or embeddings that the model takes."""
        return self._session.run(["scores"], {self._input: inputs})[0]
