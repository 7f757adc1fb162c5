"""The exported model: image bytes to label in one graph, and what it is beside it."""

from __future__ import annotations

import json
import posixpath

import keras
import tensorflow as tf

from configs.errors import InputError
from preprocess.backbone import BackboneSpec, load_keras_backbone
from preprocess.backbone_identity import BackboneIdentity
from preprocess.image_graph import decode_images_graph, scale_pixels
from trainer.head import head_digest
from trainer.model_info import MODEL_INFO_PATH, ModelInfo
from trainer.record_sets import backbone_difference


def load_backbone_of_records(identity: BackboneIdentity, *, weights: str | None) -> keras.Model:
    """Loads the network that made a set of records.

    Args:
      identity: from the set's manifest.
      weights: where the weights lie now; None for where they lay then.

    Returns:
      The Keras model, float32 [n, 299, 299, 3] in [-1, 1] to float32 [n, embedding_size].

    Raises:
      InputError: the weights cannot be had, or they are not those that made the records.
    """
    spec = BackboneSpec(
        architecture=identity.architecture,
        weights=identity.weights if weights is None else weights,
        seed=identity.seed or 0,
    )
    try:
        model, loaded = load_keras_backbone(spec)
    except InputError as error:
        if weights is not None:
            raise
        raise InputError(
            f"The exported model needs the network that made the records, {identity.describe()}, and "
            f"it cannot be loaded. {error} If the weights file lies elsewhere now, pass --weights FILE."
        ) from error
    if not loaded.agrees_with(identity):
        raise InputError(
            "The records were not made by the network that can be loaded here: "
            f"{backbone_difference(identity, loaded)}. Pass the weights file that made them as --weights "
            "FILE, or run the pipeline again."
        )
    return model


class _Classifier(tf.Module):
    """Decode, backbone and head as one object that TensorFlow can save."""

    def __init__(self, backbone: keras.Model, head: keras.Model, labels: tuple[str, ...]):
        super().__init__(name="classifier")
        self.backbone = backbone
        self.head = head
        self.labels = tf.constant(labels, tf.string)

    def _answers(self, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = tf.nn.softmax(self.head(embeddings, training=False))
        prediction = tf.argmax(scores, axis=1, output_type=tf.int64)
        return {"prediction": prediction, "label": tf.gather(self.labels, prediction), "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="key"),
            tf.TensorSpec([None], tf.string, name="image_bytes"),
        ],
        autograph=False,
    )
    def classify_images(self, key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"key": tf.identity(key), **self._answers(self._embed(image_bytes))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def embed_images(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embeddings": self._embed(image_bytes)}

    def _embed(self, image_bytes: tf.Tensor) -> tf.Tensor:
        return self.backbone(scale_pixels(decode_images_graph(image_bytes)), training=False)

    def classify_embeddings(self, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answers(embeddings)


def save_model(
    model_dir: str,
    *,
    backbone: keras.Model,
    head: keras.Model,
    labels: tuple[str, ...],
    identity: BackboneIdentity,
) -> ModelInfo:
    """Writes a classifier as one SavedModel.

    Signatures:
      `serving_default`: `key` string [n], `image_bytes` string [n] (one encoded image each) to `key` as
        given, `prediction` int64 [n] (id of the best label), `label` string [n] (its name), `scores`
        float32 [n, num_labels] (each row adds up to 1).
      `embed_images`: `image_bytes` string [n] to `embeddings` float32 [n, embedding_size], those of the pipeline.
      `embeddings`: `embeddings` float32 [n, embedding_size] to `prediction`, `label`, `scores`.

    Args:
      model_dir: a new folder.
      backbone: float32 [n, 299, 299, 3] in [-1, 1] to float32 [n, embedding_size].
      head: float32 [n, embedding_size] to logits, float32 [n, num_labels].
      labels: the dictionary.
      identity: of the backbone.

    Returns:
      What was written beside the graph.
    """
    info = ModelInfo(labels=labels, backbone=identity, head_digest=head_digest(head))
    module = _Classifier(backbone, head, labels)
    embeddings = tf.TensorSpec([None, identity.embedding_size], tf.float32, name="embeddings")
    signatures = {
        "serving_default": module.classify_images,
        "embed_images": module.embed_images,
        "embeddings": tf.function(module.classify_embeddings, autograph=False).get_concrete_function(embeddings),
    }
    tf.saved_model.save(module, model_dir, signatures=signatures)
    # assets.extra is where TensorFlow Serving expects what is not the graph's own.
    info_path = posixpath.join(model_dir, MODEL_INFO_PATH)
    tf.io.gfile.makedirs(posixpath.dirname(info_path))
    with tf.io.gfile.GFile(info_path, "w") as stream:
        stream.write(json.dumps(info.to_json(), indent=2, ensure_ascii=False) + "\n")
    return info
