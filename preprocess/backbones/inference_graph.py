"""Makes the network one constant graph, from uint8 pixels to embeddings. Every engine runs this graph.

A Keras model is built for training: it has variables, and a batch normalization after every convolution. This module
folds each normalization into the convolution before it, turns the weights into constants, and adds the scaling of
pixels, so that Python never converts images to floats. TensorFlow runs this graph a tenth faster than the Keras model,
and does not have to optimize it at each start. OpenVINO reads it in half a second, without TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.images.decode import IMAGE_SIZE
from preprocess.images.definition import DEFAULT_SCALING

# Names of the graph's input, uint8 [n, size, size, 3], and output, float32 [n, embedding_size].
PIXELS = "pixels"
EMBEDDINGS = "embeddings"

# A change to the graphs that this module makes must change this number, because graphs are cached between runs.
GRAPH_VERSION = 2


def inference_graph(model: Any, scaling: str = DEFAULT_SCALING) -> bytes:
    """The constant graph of a Keras model.

    Args:
      model: scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size].
      scaling: of the pixels, as in `images.definition`.

    Returns:
      A serialized `tf.GraphDef`, from `PIXELS` to `EMBEDDINGS`. The same network gives the same bytes in every process,
      so their digest shows whether two runs used the same graph. It takes a few seconds for Inception v3.
    """
    tf = import_tensorflow()
    from preprocess.images.decode_graph import scale_pixels

    folded = _without_batch_normalization(model)
    trainable = [variable.numpy() for variable in folded.trainable_variables]
    others = [variable.numpy() for variable in folded.non_trainable_variables]

    def embed(pixels: Any) -> Any:
        # Arrays replace the model's variables, so its trace holds constants.
        outputs, _ = folded.stateless_call(
            [tf.constant(array) for array in trainable],
            [tf.constant(array) for array in others],
            scale_pixels(pixels, scaling),
            training=False,
        )
        return tf.identity(outputs, name=EMBEDDINGS)

    shape = [None, *(model.input_shape[1:3] or (IMAGE_SIZE, IMAGE_SIZE)), 3]
    signature = [tf.TensorSpec(shape, tf.uint8, name=PIXELS)]
    traced = tf.function(embed, input_signature=signature, autograph=False).get_concrete_function()
    return _with_plain_names(_with_constants(traced)).SerializeToString(deterministic=True)


def _with_constants(traced: Any) -> Any:
    """The graph of a trace, with constants for the tensors from outside that it takes: the means of normalizations."""
    tf = import_tensorflow()
    graph = traced.graph.as_graph_def()
    values = {inside.op.name: outside for outside, inside in traced.graph.captures}
    for node in graph.node if values else ():
        if node.name in values:
            value = values[node.name]
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = value.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value.numpy()))
    # OpenVINO takes every node that nobody reads for an output, and some layers leave such nodes.
    # Where there is none but the trace's own, an Identity of the output, the graph stays as earlier versions made it.
    needed = tf.compat.v1.graph_util.extract_sub_graph(graph, [EMBEDDINGS])
    names = {node.name for node in needed.node}
    others = [node for node in graph.node if node.name not in names and list(node.input) != [EMBEDDINGS]]
    return needed if others else graph


def _with_plain_names(graph: Any) -> Any:
    """The same graph with nodes named by position, because Keras numbers the layers of a whole process in its names."""
    names = {
        node.name: node.name if node.name in (PIXELS, EMBEDDINGS) else f"node{position}"
        for position, node in enumerate(graph.node)
    }
    for node in graph.node:
        node.name = names[node.name]
        for position, source in enumerate(node.input):
            mark = "^" if source.startswith("^") else ""  # The graph waits for this node, but does not use its output.
            name, colon, output = source.removeprefix("^").partition(":")
            node.input[position] = f"{mark}{names[name]}{colon}{output}"
        node.attr.pop("_class", None)  # It lists nodes for one device, by name.
    return graph


def normalizations_to_fold(model: Any) -> dict[str, Any]:
    """The batch normalizations of a Keras model that fold into a convolution, by the name of the convolution."""
    import keras

    made_by = {id(layer.output): layer for layer in model.layers}
    uses = Counter(id(tensor) for layer in model.layers for tensor in _as_list(layer.input))
    normalization_of: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before: Any = made_by.get(id(layer.input))
            if (
                type(before) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
                and before.activation is keras.activations.linear
                and uses[id(layer.input)] == 1
                and layer.axis in (-1, 3)
            ):
                normalization_of[before.name] = layer
    return normalization_of


def _without_batch_normalization(model: Any) -> Any:
    """The same function with every batch normalization that follows a convolution folded into it.

    y = gamma * (conv(x) - mean) / sqrt(variance + epsilon) + beta is a convolution with scaled kernels and a bias.
    """
    import keras

    normalization_of = normalizations_to_fold(model)
    if not normalization_of:
        return model
    folded_away = {layer.name for layer in normalization_of.values()}

    def clone(layer: Any) -> Any:
        if layer.name in folded_away:
            return keras.layers.Identity(name=layer.name)  # never called, see below
        config = layer.get_config()
        if type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
            kernel = "depthwise_initializer" if "depthwise_initializer" in config else "kernel_initializer"
            config[kernel] = "zeros"  # random numbers for 22 million weights would take a second
            config["use_bias"] = layer.use_bias or layer.name in normalization_of
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in folded_away else layer(*args, **kwargs)

    result = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in result.layers:
        if layer.name in normalization_of:
            layer.set_weights(_fold(model.get_layer(layer.name), normalization_of[layer.name]))
        elif layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # It computes with what it derives from its weights.
    return result


def _fold(convolution: Any, normalization: Any) -> list[np.ndarray]:
    """Kernel and bias of a convolution that includes the normalization after it."""

    def numbers(variable: Any) -> np.ndarray | None:
        return None if variable is None else variable.numpy()

    return fold_normalization(
        convolution.kernel.numpy(),
        numbers(convolution.bias),
        gamma=numbers(normalization.gamma),
        beta=numbers(normalization.beta),
        mean=normalization.moving_mean.numpy(),
        variance=normalization.moving_variance.numpy(),
        epsilon=normalization.epsilon,
        depthwise=hasattr(convolution, "depth_multiplier"),
    )


def fold_normalization(
    kernel: np.ndarray,
    bias: np.ndarray | None,
    *,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    depthwise: bool,
) -> list[np.ndarray]:
    """Kernel and bias of a convolution that includes the normalization after it; float32, computed in float64.

    Args:
      kernel: of the convolution, [height, width, inputs, outputs]; if depthwise, [height, width, channels, multiplier].
      bias: of the convolution, [outputs]; None for none.
      gamma: of the normalization, as the next four; [outputs] each. None for ones.
      beta: None for zeros.
      mean: what is subtracted.
      variance: what is divided by the root of.
      epsilon: what is added to the variance.
      depthwise: whether each output has a kernel of its own channel alone.
    """
    scale = 1.0 / np.sqrt(variance.astype(np.float64) + epsilon)
    if gamma is not None:
        scale *= gamma
    folded_bias = -mean * scale
    if beta is not None:
        folded_bias += beta
    if bias is not None:
        folded_bias += bias * scale
    # Of a depthwise kernel, the last two axes make the channels that come out.
    scales = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return [(kernel * scales).astype(np.float32), folded_bias.astype(np.float32)]


def _as_list(tensors: Any) -> list[Any]:
    return tensors if isinstance(tensors, list) else [tensors]
