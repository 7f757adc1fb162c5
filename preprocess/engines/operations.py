"""A constant graph as operations and arrays in files, which are read without TensorFlow.

`read_graph` takes a `tf.GraphDef` apart, once for each network; the result is kept on disk (`converted_networks`). What
depends on constants alone is computed here by TensorFlow, in float32, and becomes an array. So an engine that computes
in a lower precision rounds each weight once.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise

# A change to what this module makes must change this number: operations are kept on disk from run to run.
OPERATIONS_VERSION = 1

_OPERATIONS = "operations.json"
_ARRAYS = "arrays.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a network.

    Attributes:
      name: of its value; further values, of the few operations that have several, are "NAME:1", "NAME:2" and so on.
      kind: as TensorFlow calls it, for example "Conv2D": https://www.tensorflow.org/api_docs/python/tf/raw_ops.
      inputs: the names of the values that it takes: of operations before it, of arrays, or `PIXELS`.
      attributes: as TensorFlow calls them; numbers, texts, truth values and lists of these. Types are NumPy's names.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operations:
    """A network from `PIXELS` to embeddings.

    Attributes:
      pixel_shape: height, width and channels of an image.
      output: the name of the embeddings.
      operations: each after all those that it needs.
      arrays: the constants that operations take, by name: weights (float32), shapes and axes (int32).
    """

    pixel_shape: tuple[int, int, int]
    output: str
    operations: tuple[Operation, ...]
    arrays: dict[str, np.ndarray]

    def save(self, folder: str) -> None:
        """Writes the files that `read_operations` reads; raises OSError."""
        content = {
            "pixel_shape": self.pixel_shape,
            "output": self.output,
            "operations": [dataclasses.asdict(operation) for operation in self.operations],
        }
        with open(os.path.join(folder, _OPERATIONS), "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        np.savez(os.path.join(folder, _ARRAYS), **self.arrays)  # type: ignore[arg-type]


def read_operations(folder: str) -> Operations:
    """What `Operations.save` wrote; raises OSError."""
    with open(os.path.join(folder, _OPERATIONS), encoding="utf-8") as stream:
        content = json.load(stream)
    with np.load(os.path.join(folder, _ARRAYS), allow_pickle=False) as arrays:
        return Operations(
            pixel_shape=tuple(content["pixel_shape"]),
            output=content["output"],
            operations=tuple(
                Operation(**{**operation, "inputs": tuple(operation["inputs"])}) for operation in content["operations"]
            ),
            arrays=dict(arrays),
        )


def read_graph(graph: bytes) -> Operations:
    """The operations of a graph.

    Args:
      graph: a serialized `tf.GraphDef`, `PIXELS` (uint8 [n, height, width, 3]) to `EMBEDDINGS` (float32
        [n, embedding_size]), without variables and without state.
    """
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(graph)
    nodes = {node.name: node for node in definition.node}
    order = _in_order(nodes, EMBEDDINGS)
    constant: dict[str, bool] = {}
    for name in order:
        # An operation without inputs is a constant or a placeholder.
        constant[name] = nodes[name].op != "Placeholder" and all(map(constant.__getitem__, _sources(nodes[name])))
    operations, arrays = [], set()
    for name in order:
        if constant[name] or name == PIXELS:
            continue
        node = nodes[name]
        inputs = tuple(source.removesuffix(":0") for source in node.input if not source.startswith("^"))
        arrays |= {source for source in inputs if constant[source.partition(":")[0]]}
        attributes = {key: _plain(tf, value) for key, value in node.attr.items() if not key.startswith("_")}
        operations.append(Operation(name=name, kind=node.op, inputs=inputs, attributes=attributes))
    height, width, channels = (dim.size for dim in nodes[PIXELS].attr["shape"].shape.dim[1:])
    return Operations(
        pixel_shape=(height, width, channels),
        output=EMBEDDINGS,
        operations=tuple(operations),
        arrays=_compute(tf, definition, sorted(arrays)),
    )


def _sources(node: Any) -> list[str]:
    """The names of the nodes whose values a node takes."""
    return [source.partition(":")[0] for source in node.input if not source.startswith("^")]


def _in_order(nodes: dict[str, Any], output: str) -> list[str]:
    """The names of the nodes that the output needs, each after all those that it needs itself."""
    order: dict[str, None] = {}
    stack = [output]
    while stack:
        name = stack[-1]
        missing = [source for source in _sources(nodes[name]) if source not in order]
        if missing:
            stack += missing
        else:
            order[name] = None
            stack.pop()
    return list(order)


def _plain(tf: Any, value: Any) -> Any:
    """The value of an attribute as JSON; None for kinds that no engine looks at (shapes, functions)."""
    kind = value.WhichOneof("value")
    if kind == "s":
        return value.s.decode("utf-8", "replace")
    if kind == "type":
        return tf.as_dtype(value.type).name
    if kind == "list":
        return [
            *value.list.i,
            *value.list.f,
            *value.list.b,
            *(text.decode("utf-8", "replace") for text in value.list.s),
        ]
    return getattr(value, kind) if kind in ("i", "f", "b") else None


def _compute(tf: Any, definition: Any, names: list[str]) -> dict[str, np.ndarray]:
    """Values of a graph that depend on constants alone."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        with without_tensorflow_noise(), tf.compat.v1.Session(graph=graph, config=config) as session:
            values = session.run([name if ":" in name else f"{name}:0" for name in names])
    return dict(zip(names, map(np.asarray, values), strict=True))
