"""Makes a Keras model of a constant TensorFlow graph (`tf.GraphDef`): from its pixels to one of its tensors.

Graphs of 2015 to 2019 were made for one image at a time, with operations that newer graphs may not have. They are
changed so that they take batches. Nothing of a graph is run that reads files, runs Python or keeps a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from configs.errors import InputError, cause_in_one_line, did_you_mean
from preprocess.backbones.tensorflow_import import import_tensorflow

# Operations of a graph from elsewhere that would read or write what is no part of it, or run code.
_FORBIDDEN = ("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2")
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "RefVariable")
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownGraph:
    """A graph that people have, and what is known of it.

    Attributes:
      nodes: names of nodes by which it is known.
      input_tensor: takes the pixels; None for the only placeholder.
      output_tensor: the embeddings.
      classes_tensor: the probabilities of the classes.
      size: of the input; None for what the placeholder says.
      scaling: of the pixels, as in `images.definition`.
    """

    nodes: tuple[str, ...]
    input_tensor: str | None
    output_tensor: str
    classes_tensor: str
    size: int | None
    scaling: str


def _slim(name: str, pool: str) -> KnownGraph:
    """A network of TF-Slim, https://github.com/tensorflow/models/tree/master/research/slim."""
    return KnownGraph(
        nodes=(f"{name}/{pool}", f"{name}/Predictions/Reshape_1"),
        input_tensor=None,
        output_tensor=f"{name}/{pool}:0",
        classes_tensor=f"{name}/Predictions/Reshape_1:0",
        size=None,
        scaling="tf",
    )


KNOWN_GRAPHS = (
    # classify_image_graph_def.pb of inception-2015-12-05.tgz, which classify_image.py and retrain.py used. It decodes
    # and resizes one JPEG, and then computes (x - 128) / 128 by itself.
    KnownGraph(
        nodes=("ResizeBilinear", "pool_3/_reshape", "softmax"),
        input_tensor="ResizeBilinear:0",
        output_tensor="pool_3/_reshape:0",
        classes_tensor="softmax:0",
        size=299,
        scaling="none",
    ),
    _slim("MobilenetV1", "Logits/AvgPool_1a/AvgPool"),
    _slim("MobilenetV2", "Logits/AvgPool"),
    _slim("InceptionV3", "Logits/AvgPool_1a_8x8/AvgPool"),
)


def known_graph(graph: Any) -> KnownGraph | None:
    """What is known of a graph, by the names of its nodes."""
    names = {node.name for node in graph.node}
    return next((known for known in KNOWN_GRAPHS if names.issuperset(known.nodes)), None)


def find_input(graph: Any, asked: str | None, *, where: str) -> tuple[str, int | None]:
    """The tensor that takes the pixels.

    Args:
      graph: a `tf.GraphDef`.
      asked: its name, with or without ":0"; None for the only placeholder.
      where: the file, for messages.

    Returns:
      Its name with ":0", and the size of its input if the graph says it.

    Raises:
      InputError: there is no such tensor, or more than one placeholder.
    """
    nodes = {node.name: node for node in graph.node}
    placeholders = [node.name for node in graph.node if node.op.startswith("Placeholder")]
    if asked is None:
        if len(placeholders) != 1:
            raise InputError(
                f"--input_tensor: {where} has {len(placeholders)} inputs{_listed(placeholders)}, and a backbone has "
                "one, the pixels. Name the tensor that takes them."
            )
        asked = placeholders[0]
    name = asked.partition(":")[0]
    if name not in nodes:
        raise InputError(
            f"--input_tensor: {where} has no tensor {asked!r}.{did_you_mean(name, nodes)} Its inputs are"
            f"{_listed(placeholders) or ' none'}."
        )
    height, width = input_sides(graph, name)
    return f"{name}:0" if ":" not in asked else asked, height if height == width else None


def input_sides(graph: Any, tensor: str) -> tuple[int | None, int | None]:
    """Height and width of the images that a placeholder of a graph takes; None for what it does not say."""
    name = tensor.partition(":")[0]
    node = next(node for node in graph.node if node.name == name)
    dims = [dim.size for dim in node.attr["shape"].shape.dim] if "shape" in node.attr else []
    height, width = (side if side > 0 else None for side in dims[1:3]) if len(dims) == 4 else (None, None)
    return height, width


def graph_model(
    graph: Any, *, input_tensor: str, output_tensor: str | None, size: int, where: str, width: int | None = None
) -> Any:
    """Makes the Keras model.

    Args:
      graph: a `tf.GraphDef` without variables.
      input_tensor: takes the pixels.
      output_tensor: the embeddings, [n, m], or [n, height, width, m], which is averaged over the image.
      size: side of the input.
      where: the file, for messages.
      width: of the input, if it is no square and `size` is its height.

    Returns:
      The model: float32 [n, size, width, 3] to float32 [n, m].

    Raises:
      InputError: there is no such tensor, it is no such embedding, or the graph does what a backbone may not do.
    """
    tf = import_tensorflow()
    import keras

    width = width or size
    graph = _for_batches(graph)
    holder = tf.Graph()
    try:
        with holder.as_default():
            pixels = tf.compat.v1.placeholder(tf.float32, [None, size, width, 3], name="hugs_pixels")
            wanted = _dtype_of(graph, input_tensor)
            mapped = pixels if wanted in (None, tf.float32) else tf.cast(pixels, wanted)
            tf.graph_util.import_graph_def(graph, input_map={input_tensor: mapped}, name="")
    except ValueError as error:
        raise InputError(
            f"backbone: {where} cannot be used with pixels [n, {size}, {width}, 3] at {input_tensor} "
            f"({cause_in_one_line(error)})."
        ) from error
    behind = _behind(holder, pixels)
    fitting = list(_fitting(holder, behind))
    if output_tensor is None:
        raise InputError(
            f"--output_tensor: name the tensor of {where} that holds the embeddings. Those that fit are"
            f"{_listed(fitting)}."
        )
    full_name = output_tensor if ":" in output_tensor else f"{output_tensor}:0"
    try:
        output = holder.get_tensor_by_name(full_name)
    except (KeyError, ValueError):
        raise InputError(
            f"--output_tensor: {where} has no tensor {output_tensor!r}."
            f"{did_you_mean(full_name, [name.partition(' ')[0] for name in fitting])} Those that fit are"
            f"{_listed(fitting)}."
        ) from None
    if output.shape.rank not in (2, 4) or output.shape[-1] is None or not output.dtype.is_floating:
        raise InputError(
            f"--output_tensor: {output_tensor} of {where} is {output.dtype.name} {output.shape}, and an embedding is "
            f"floats, [n, m] or [n, height, width, m]. Those that fit are{_listed(fitting)}."
        )
    if full_name not in behind:
        raise InputError(
            f"--output_tensor: {output_tensor} of {where} does not depend on {input_tensor}, which takes the pixels. "
            f"Those that fit are{_listed(fitting)}."
        )
    part = tf.compat.v1.graph_util.extract_sub_graph(holder.as_graph_def(), [full_name.partition(":")[0]])
    _check_operations(part, pixels.op.name, where)
    layer = _graph_layer_class()(part, pixels.name, full_name, output.shape.rank, int(output.shape[-1]))
    inputs = keras.Input((size, width, 3))
    model = keras.Model(inputs, layer(inputs))
    _check_batches(model, (size, width), where)
    return model


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more before them" if len(names) > _SHOWN else ""
    return f" {', '.join(names[-_SHOWN:])}{more}" if names else ""


def _dtype_of(graph: Any, tensor: str) -> Any:
    import tensorflow as tf

    for node in graph.node:
        if node.name == tensor.partition(":")[0] and node.op.startswith("Placeholder"):
            return tf.dtypes.as_dtype(node.attr["dtype"].type)
    return None


def _for_batches(graph: Any) -> Any:
    """A copy whose shapes hold for any number of images, without operations that today's graphs may not have."""
    import tensorflow as tf

    graph = type(graph).FromString(graph.SerializeToString())
    graph.versions.Clear()  # Operations of old versions are replaced below.
    graph.versions.producer = tf.version.GRAPH_DEF_VERSION
    nodes = {node.name: node for node in graph.node}
    shapes = {node.input[1].partition(":")[0] for node in graph.node if node.op == "Reshape"}
    for node in graph.node:
        if node.op == "BatchNormWithGlobalNormalization":
            _modernize(node, graph)
        elif node.op == "CheckNumerics":  # Infinite numbers are found later, image by image.
            node.op = "Identity"
            del node.attr["message"]
        elif node.op == "Identity" and node.name in shapes:
            shapes.add(node.input[0].partition(":")[0])
    for name in sorted(shapes):
        node = nodes.get(name)
        if node is None or node.op != "Const":
            continue
        shape = tf.make_ndarray(node.attr["value"].tensor)
        if shape.ndim == 1 and len(shape) > 1 and shape[0] == 1 and (shape > 0).all():
            # One image: the shape of any number of them.
            wide = np.concatenate([np.asarray([-1], shape.dtype), shape[1:]])
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(wide))
    for node in graph.node:
        node.device = ""
    return graph


def _modernize(node: Any, graph: Any) -> None:
    """Turns a batch normalization of 2015, which graphs may not have since version 9, into one of today."""
    import tensorflow as tf

    values, mean, variance, beta, gamma = node.input
    if not node.attr["scale_after_normalization"].b:
        # It has no scale then; 1 in its place, of the same shape as the variance.
        ones = graph.node.add(op="OnesLike", name=f"{node.name}/hugs_ones", input=[variance])
        ones.attr["T"].type = tf.float32.as_datatype_enum
        gamma = ones.name
    epsilon = node.attr["variance_epsilon"].f
    node.op = "FusedBatchNormV3"
    del node.input[:]
    node.input.extend([values, gamma, beta, mean, variance])
    node.attr.clear()
    node.attr["T"].type = node.attr["U"].type = tf.float32.as_datatype_enum
    node.attr["epsilon"].f = epsilon
    node.attr["is_training"].b = False


def _behind(holder: Any, pixels: Any) -> set[str]:
    """The names of the tensors that depend on the pixels."""
    behind = {pixels.name}
    for operation in holder.get_operations():
        if any(tensor.name in behind for tensor in operation.inputs):
            behind.update(tensor.name for tensor in operation.outputs)
    return behind - {pixels.name}


def _fitting(holder: Any, behind: set[str]) -> Iterator[str]:
    """The tensors that could be embeddings, with the number of their values, in the order of the graph."""
    for operation in holder.get_operations():
        for tensor in operation.outputs:
            shape = tensor.shape
            is_flat = shape.rank == 2 or (shape.rank == 4 and shape[1] == shape[2] == 1)
            if tensor.name in behind and is_flat and tensor.dtype.is_floating and shape[-1] not in (None, 1):
                yield f"{tensor.name} ({shape[-1]})"


def _check_operations(graph: Any, pixels: str, where: str) -> None:
    for node in graph.node:
        if node.op in _VARIABLES:
            raise InputError(f"backbone: {where} is not frozen: its weights are variables ({node.name}).")
        if node.op.startswith("Placeholder") and node.name != pixels:
            raise InputError(
                f"backbone: the embeddings of {where} depend on a second input, {node.name}, beside the pixels, and a "
                "backbone has one. Freeze it with a constant there, or name another --output_tensor."
            )
        if node.op in _FORBIDDEN or _is_stateful(node.op):
            raise InputError(
                f"backbone: {where} has the operation {node.op} ({node.name}) between pixels and embeddings, which "
                "reads or changes something outside of it. A backbone may not."
            )


def _is_stateful(op: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    return definition is None or (definition.is_stateful and op != "Placeholder")


def _check_batches(model: Any, shape: tuple[int, int], where: str) -> None:
    pixels = np.random.RandomState(0).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    try:
        both = np.asarray(model(pixels, training=False))
        one = np.asarray(model(pixels[1:], training=False))
    except Exception as error:  # What TensorFlow raises where shapes do not fit.
        raise InputError(f"backbone: {where} does not take a batch of images ({cause_in_one_line(error)}).") from error
    if both.shape != (2, *one.shape[1:]) or not np.allclose(both[1:], one, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise InputError(f"backbone: {where} does not give each image of a batch an embedding of its own.")


def _graph_layer_class() -> Any:
    """The class of the layer; a function, so that this module is imported without Keras."""
    import keras
    import tensorflow as tf

    class GraphLayer(keras.layers.Layer):
        """Runs a constant graph. Its weights are constants, so it has no variables."""

        def __init__(self, graph: Any, input_tensor: str, output_tensor: str, rank: int, units: int):
            super().__init__()
            self._graph = graph
            self._names = input_tensor, output_tensor
            self._rank, self._units = rank, units
            self._eagerly = tf.function(self._inline, autograph=False)

        @property
        def graph_def(self) -> Any:
            """The constant graph, a `tf.GraphDef`."""
            return self._graph

        def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
            return input_shape[0], self._units

        def call(self, pixels: Any) -> Any:
            # In a graph, as operations of that graph: converters of other formats look into no function.
            return self._eagerly(pixels) if tf.executing_eagerly() else self._inline(pixels)

        def _inline(self, pixels: Any) -> Any:
            pixels_name, output_name = self._names
            (values,) = tf.graph_util.import_graph_def(
                self._graph, input_map={pixels_name: pixels}, return_elements=[output_name], name="network"
            )
            values = tf.cast(values, tf.float32)
            if self._rank == 4:
                values = tf.reduce_mean(values, axis=[1, 2])
            values.set_shape([None, self._units])
            return values

    return GraphLayer
