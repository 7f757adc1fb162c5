"""ONNX: the model for ONNX Runtime, OpenVINO, TensorRT and other programs that read this format."""

from __future__ import annotations

import json
import logging
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from configs.errors import InputError
from configs.install_hint import install_hint
from trainer.export.model_info import ModelInfo
from trainer.export.pixel_classifier import PixelClassifier, input_name

# The newest version that tf2onnx 1.17 writes.
_OPSET = 18
# The attribute of functions that XLA must compile.
_XLA = "_XlaMustCompile"


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
        _inlinable(classifier.classify),
        input_signature=classifier.classify.input_signature,
        opset=_OPSET,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
    )
    described = {**info.to_json(), "input": input_name(info)}
    for key, value in (
        ("labels", "\n".join(info.labels)),
        ("model.json", json.dumps(described, ensure_ascii=False)),
    ):
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def _inlinable(classify: Any) -> Any:
    """The same function, in which tf2onnx can put functions in place of their calls, which ONNX does not have.

    Keras has XLA compile convolutions in groups, as ConvNeXt has them, and what XLA must compile is not inlined.
    LiteRT's converter takes such functions as they are, and no others.
    """
    traced = classify.get_concrete_function()
    graph = traced.graph.as_graph_def()
    compiled = [function for function in graph.library.function if function.attr[_XLA].b]
    if not compiled:
        return classify
    for function in compiled:
        del function.attr[_XLA]
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            node.attr.pop(_XLA, None)
    (argument,) = traced.inputs
    outputs: dict[str, tf.Tensor] = traced.structured_outputs

    def classify_again(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = tf.graph_util.import_graph_def(
            graph,
            input_map={argument.name: inputs},
            return_elements=[tensor.name for tensor in outputs.values()],
            name="",
        )
        return dict(zip(outputs, tensors, strict=True))

    return tf.function(classify_again, input_signature=classify.input_signature, autograph=False)


def _convert_erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Erfc, with which Keras computes the activation GELU, as 1 - Erf: tf2onnx knows Erf alone.

    In float32 the difference is below 1e-7, which GELU multiplies by its input.
    """
    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    erf = graph.make_node("Erf", list(node.input)).output[0]
    shapes, dtypes = node.output_shapes, node.output_dtypes
    outputs = list(node.output)
    graph.remove_node(node.name)
    graph.make_node("Sub", [one, erf], outputs=outputs, name=name, shapes=shapes, dtypes=dtypes)


class Runner:
    """A converted model, ready to run."""

    def __init__(self, model: bytes, info: ModelInfo):
        _, onnxruntime = require_packages()
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._input = input_name(info)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """The scores, float32 [n, num_labels], for the pixels or embeddings that the model takes."""
        return self._session.run(["scores"], {self._input: inputs})[0]
