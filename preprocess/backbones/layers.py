"""The layers of a network with their output shapes and parameters, and its graph for TensorBoard."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from preprocess.backbones.tensorflow_import import import_tensorflow

# They pass on what they get, or hold parameters, which are counted where they are used.
_NOT_SHOWN = ("Const", "Identity", "NoOp", "Placeholder", "ReadVariableOp")
# TensorBoard shows no values of constants, and drops attributes of more bytes.
_MAX_CONSTANT_BYTES = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of a network, or an operation of a graph.

    Attributes:
      name: in the network.
      op: the kind of layer, such as Conv2D.
      shape: of its output; None where it is any number, such as that of the images of a batch.
      parameters: numbers that were trained, or that belong to a normalization.
    """

    name: str
    op: str
    shape: tuple[int | None, ...]
    parameters: int

    @property
    def shape_words(self) -> str:
        """The shape for people, for example "? x 7 x 7 x 1280"."""
        return " x ".join("?" if side is None else str(side) for side in self.shape)


def layers_of(model: Any) -> list[Layer]:
    """The layers of a Keras model in their order; of a network from a file, the operations of its graph."""
    found: list[Layer] = []
    for layer in model.layers:
        graph = getattr(layer, "graph_def", None)
        if graph is not None:
            found += layers_of_graph(graph)
            continue
        output = layer.output
        shape = tuple((output[0] if isinstance(output, (list, tuple)) else output).shape)
        found.append(Layer(name=layer.name, op=type(layer).__name__, shape=shape, parameters=int(layer.count_params())))
    return found


def layers_of_graph(graph_def: Any) -> list[Layer]:
    """The operations of a constant graph, a `tf.GraphDef`, in its order. Constants count where they are used first."""
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    counted: set[str] = set()
    found = []
    for operation in graph.get_operations():
        if operation.type in _NOT_SHOWN or not operation.outputs:
            continue
        parameters = 0
        for tensor in operation.inputs:
            while tensor.op.type in ("Identity", "Enter"):
                tensor = tensor.op.inputs[0]
            # Shapes, axes and numbers such as epsilon are no parameters.
            if (
                tensor.op.type == "Const"
                and tensor.dtype.is_floating
                and tensor.shape.rank
                and tensor.name not in counted
            ):
                counted.add(tensor.name)
                parameters += math.prod(tensor.shape.as_list())
        shape = operation.outputs[0].shape
        sides = tuple(shape.as_list()) if shape.rank is not None else (None,)
        found.append(Layer(name=operation.name, op=operation.type, shape=sides, parameters=parameters))
    return found


def graph_of(model: Any) -> Any:
    """The graph that a Keras model runs, a `tf.GraphDef` for TensorBoard: with shapes, and without large constants."""
    tf = import_tensorflow()
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="input")
    traced = tf.function(lambda values: model(values, training=False), autograph=False).get_concrete_function(spec)
    return without_large_constants(traced.graph.as_graph_def(add_shapes=True))


def without_large_constants(graph_def: Any) -> Any:
    """A copy of a graph in which large constants keep type and shape and lose their values."""
    copy = type(graph_def).FromString(graph_def.SerializeToString())
    for node in copy.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > _MAX_CONSTANT_BYTES:
            tensor = node.attr["value"].tensor
            dtype, shape = tensor.dtype, type(tensor.tensor_shape).FromString(tensor.tensor_shape.SerializeToString())
            tensor.Clear()
            tensor.dtype = dtype
            tensor.tensor_shape.CopyFrom(shape)
    return copy
