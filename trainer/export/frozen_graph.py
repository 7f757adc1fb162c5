"""Frozen graphs as TensorFlow's `retrain.py` wrote them: one constant graph from decoded pixels to scores, and labels.

Programs that read `output_graph.pb` and `output_labels.txt`, such as TensorFlow's `label_image`, find the tensors
`Placeholder` and `final_result` in it, and give it pixels from 0 to 1 (`input_mean` 0, `input_std` 255).
(https://github.com/tensorflow/hub/blob/master/examples/image_retraining/retrain.py)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from configs.errors import InputError
from preprocess.images.decode import encode_png
from preprocess.images.decode_graph import DECODED_IMAGES, DECODING_ERRORS
from preprocess.images.probe_images import probe_images
from trainer.export.classifier import Classifier
from trainer.export.model_info import ModelInfo

INPUT_NAME = "Placeholder"
OUTPUT_NAME = "final_result"
_SCORES = "scores"
# The frozen graph runs the operations of the SavedModel. TensorFlow may fuse them in another way.
_TOLERANCE = 1e-4
_PROBES = 3
_CALLS = re.compile(r"(?:Stateful)?PartitionedCall(?:_\d+)?/")


def frozen_graph(signature: Any, info: ModelInfo, *, output_name: str = OUTPUT_NAME) -> bytes:
    """Makes the graph of an exported model, without the part that decodes images.

    Args:
      signature: the function of the model from encoded images to predictions.
      info: of the model.
      output_name: of the operation that gives the scores.

    Returns:
      A serialized `tf.GraphDef`: `Placeholder` float32 [n, size, size, 3], pixels from 0 to 1, to `output_name` float32
      [n, num_labels]. The scores are those of the model, with its temperature. Pixels are rounded to whole grey levels,
      as the model takes them.

    Raises:
      InputError: the name is that of another operation, or the model was exported by another version.
    """
    graph_def, scores = _frozen(signature)
    inner, pixels_name = _without_decoding(graph_def, scores.partition(":")[0])
    size = info.image.size
    with tf.Graph().as_default() as graph:
        placeholder = tf.compat.v1.placeholder(tf.float32, [None, size, size, 3], name=INPUT_NAME)
        levels = tf.clip_by_value(tf.round(placeholder * 255.0), 0.0, 255.0)
        (values,) = tf.graph_util.import_graph_def(
            inner,
            input_map={f"{pixels_name}:0": tf.cast(levels, tf.uint8)},
            return_elements=[scores],
            name="network",
        )
        values.set_shape([None, len(info.labels)])
        if tf.identity(values, name=output_name).op.name != output_name:
            raise InputError(f"--final_tensor_name: {output_name!r} is the name of another operation. Choose another.")
    pruned = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), [output_name])
    pruned.library.Clear()
    return bytes(pruned.SerializeToString())


def frozen_head(signature: Any) -> Any:
    """The head alone, a constant `tf.GraphDef` from embeddings to scores.

    Args:
      signature: the function of the model from embeddings to predictions.
    """
    graph_def, scores = _frozen(signature)
    part = tf.compat.v1.graph_util.extract_sub_graph(graph_def, [scores.partition(":")[0]])
    part.library.Clear()
    return part


def _frozen(signature: Any) -> tuple[Any, str]:
    """The graph of a signature with its variables as constants, and the tensor of the scores."""
    frozen = convert_variables_to_constants_v2(signature)
    position = sorted(signature.structured_outputs).index(_SCORES)
    return _with_short_names(frozen.graph.as_graph_def(), frozen.outputs[position].name)


def _with_short_names(graph_def: Any, tensor: str) -> tuple[Any, str]:
    """The same graph, and a tensor of it, without the names of the calls of functions, which say nothing."""
    names = {node.name for node in graph_def.node}
    short: dict[str, str] = {}
    taken = set(names)
    for name in sorted(names):
        wanted = free = _CALLS.sub("", name)
        for number in itertools.count(1):
            if free == name or free not in taken:
                break
            free = f"{wanted}_{number}"
        short[name] = free
        taken.add(free)

    def renamed(reference: str) -> str:
        name, mark, output = reference.removeprefix("^").partition(":")
        return f"{'^' if reference.startswith('^') else ''}{short[name]}{mark}{output}"

    for node in graph_def.node:
        node.name = short[node.name]
        inputs = [renamed(reference) for reference in node.input]
        del node.input[:]
        node.input.extend(inputs)
    return graph_def, renamed(tensor)


def _without_decoding(graph: Any, scores: str) -> tuple[Any, str]:
    """The part of a graph from the decoded images to the scores, and the node that stands for the images.

    `decode_images_or_errors_graph` names its results. In the part, no image has an error.
    """
    images, errors = (
        [node for node in graph.node if node.name.rpartition("/")[2] == name]
        for name in (DECODED_IMAGES, DECODING_ERRORS)
    )
    if len(images) != 1 or len(errors) != 1:
        raise InputError(
            "model_dir: the model was exported by another version, in which the decoded images are not found. Train "
            "again."
        )
    for node, op, dtype in ((images[0], "Placeholder", tf.uint8), (errors[0], "Const", tf.string)):
        node.op = op
        del node.input[:]
        node.attr.clear()
        node.attr["dtype"].type = dtype.as_datatype_enum
    errors[0].attr["value"].tensor.CopyFrom(tf.make_tensor_proto([""]))
    for node in graph.node:
        # They make sure that an image was decoded, which is no part of this graph.
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)
    part = tf.compat.v1.graph_util.extract_sub_graph(graph, [scores])
    part.library.Clear()
    return part, images[0].name


def run_graph(data: bytes, pixels: np.ndarray, *, output_name: str = OUTPUT_NAME) -> np.ndarray:
    """Runs a graph as `label_image` does.

    Args:
      data: from `frozen_graph`.
      pixels: uint8 [n, size, size, 3].
      output_name: as in `frozen_graph`.

    Returns:
      float32 [n, num_labels].
    """
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(data), name="import")
    with tf.compat.v1.Session(graph=graph) as session:
        values = (pixels.astype(np.float32) - 0) / 255
        scores = session.run(f"import/{output_name}:0", {f"import/{INPUT_NAME}:0": values})
    return np.asarray(scores)


def require_same_scores(data: bytes, classifier: Classifier, *, output_name: str = OUTPUT_NAME) -> None:
    """Compares the scores of a graph with those of the model, on photos that are drawn.

    Raises:
      InputError: a score differs.
    """
    pixels = np.asarray(probe_images(_PROBES, size=classifier.info.image.size))
    wanted = np.stack([prediction.scores for prediction in classifier.predict([encode_png(image) for image in pixels])])
    difference = float(np.abs(run_graph(data, pixels, output_name=output_name) - wanted).max())
    if not difference <= _TOLERANCE:
        raise InputError(
            f"the frozen graph was not written: a score differs from the model's by {difference:.2g}, and "
            f"{_TOLERANCE:g} is allowed. Please report this."
        )


def label_lines(labels: Sequence[str]) -> bytes:
    """The content of `output_labels.txt`: one label a line, in the order of the scores."""
    return "".join(f"{label}\n" for label in labels).encode()


def label_image_flags(info: ModelInfo, *, output_name: str = OUTPUT_NAME) -> list[str]:
    """The flags that TensorFlow's `label_image` needs for the graph, beside its files."""
    size = info.image.size
    return [
        f"--input_layer={INPUT_NAME}",
        f"--output_layer={output_name}",
        f"--input_height={size}",
        f"--input_width={size}",
        "--input_mean=0",
        "--input_std=255",
    ]
