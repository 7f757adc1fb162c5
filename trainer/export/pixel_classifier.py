"""Backbone, head and temperature as one function of pixels. Formats other than SavedModel are made from it.

No other runtime decodes images as TensorFlow does, so these formats take the pixels that `images.decode.decode_image`
gives.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS, inference_graph
from trainer.export.model_info import ModelInfo
from trainer.export.prediction_ops import predictions


def input_name(info: ModelInfo) -> str:
    """The name of the classifier's only input."""
    return PIXELS if info.takes_images else EMBEDDINGS


class PixelClassifier(tf.Module):
    """The classifier. Its weights are constants, and batch normalization is folded into the convolutions.

    Attributes:
      classify: a `tf.function` with one signature. It takes `pixels` uint8 [n, size, size, 3] or, if there is no
        backbone, `embeddings` float32 [n, embedding_size]. It gives what `trainer.export.prediction_ops.predictions`
        gives.
    """

    def __init__(self, backbone: keras.Model | None, head: keras.Model, info: ModelInfo):
        """Makes the graph, which takes seconds for Inception v3.

        Args:
          backbone: scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size]; None for the head alone.
          head: float32 [n, embedding_size] to logits.
          info: gives the label mode, the temperature and the threshold of the model.
        """
        super().__init__(name="pixel_classifier")
        head_graph = _traced_head(head)
        embeddings_spec = tf.TensorSpec([None, head.input_shape[-1]], tf.float32, name=EMBEDDINGS)

        def predict(embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
            return predictions(
                _with_constants(head_graph, embeddings),
                label_mode=info.label_mode,
                temperature=info.temperature,
                threshold=info.threshold,
            )

        if backbone is None:
            self.classify = tf.function(predict, input_signature=[embeddings_spec], autograph=False)
            return
        backbone_graph = tf.compat.v1.GraphDef.FromString(inference_graph(backbone, info.image.scaling))

        def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            (embeddings,) = tf.graph_util.import_graph_def(
                backbone_graph,
                input_map={f"{PIXELS}:0": pixels},
                return_elements=[f"{EMBEDDINGS}:0"],
                name="backbone",
            )
            return predict(embeddings)

        pixels_spec = tf.TensorSpec([None, info.image.size, info.image.size, 3], tf.uint8, name=PIXELS)
        self.classify = tf.function(classify, input_signature=[pixels_spec], autograph=False)


def _traced_head(head: keras.Model) -> Any:
    """The head as a concrete function without variables, from embeddings to logits."""
    trainable = [variable.numpy() for variable in head.trainable_variables]
    others = [variable.numpy() for variable in head.non_trainable_variables]

    def logits(embeddings: tf.Tensor) -> tf.Tensor:
        return head.stateless_call(
            [tf.constant(array) for array in trainable],
            [tf.constant(array) for array in others],
            embeddings,
            training=False,
        )[0]

    spec = tf.TensorSpec([None, head.input_shape[-1]], tf.float32, name=EMBEDDINGS)
    return tf.function(logits, input_signature=[spec], autograph=False).get_concrete_function()


def _with_constants(traced: Any, embeddings: tf.Tensor) -> tf.Tensor:
    """Copies the graph of `_traced_head` into the current graph.

    Keras' Normalization holds its mean as a tensor and not as a variable, so a trace captures it from outside. tf2onnx
    treats it as an input of the model, and LiteRT computes NaN with it.
    """
    captured = {inside.name: tf.constant(outside.numpy()) for outside, inside in traced.graph.captures}
    (logits,) = tf.graph_util.import_graph_def(
        traced.graph.as_graph_def(),
        input_map={traced.inputs[0].name: embeddings, **captured},
        return_elements=[traced.outputs[0].name],
        name="head",
    )
    return logits
