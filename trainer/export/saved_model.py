"""The exported model: one graph from image bytes to labels, and the description that is stored with it."""

from __future__ import annotations

import json
import os

import keras
import tensorflow as tf

from configs.errors import InputError
from configs.page import PageOptions
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import BackboneSpec, complete_spec, load_keras_backbone
from preprocess.backbones.network_files import FROZEN_GRAPH, kind_of
from preprocess.images.decode_graph import decode_images_or_errors_graph, scale_pixels
from preprocess.records.backbone_identity import UNVERIFIED, BackboneIdentity, difference_of
from trainer.data.label_mode import LabelMode
from trainer.export.head_arrays import write_head
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo
from trainer.export.prediction_ops import predictions, without_bad
from trainer.training.head import head_digest


def load_backbone_of_records(identity: BackboneIdentity, *, weights: str | None) -> keras.Model:
    """Loads the network that made a set of records.

    Args:
      identity: the identity in the set's manifest.
      weights: where the weights are now; None if they are still where the manifest says.

    Returns:
      The Keras model, scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size].

    Raises:
      InputError: the weights are not available, or they are not those that made the records.
    """
    spec = BackboneSpec.of_identity(identity, weights=weights)
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
            f"{difference_of(identity, loaded)}. Pass the weights file that made them as --weights "
            "FILE, or run the pipeline again."
        )
    return model


def load_unverified_backbone(weights: str, *, records: BackboneIdentity) -> tuple[keras.Model, BackboneIdentity]:
    """Loads the network that the user names for records that do not say which network made them.

    Args:
      weights: the value of `--weights`: a frozen graph (.pb), a weights file of the architecture that the records name,
        of Inception v3 if they name none, or "imagenet".
      records: what the records say of their network.

    Returns:
      The Keras model, scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size], and its identity.
      Nothing shows that this network made the records.

    Raises:
      InputError: the weights are not available, or the network's embeddings have another size.
    """
    if kind_of(weights) == FROZEN_GRAPH and weights.endswith(".pb"):
        spec = complete_spec(BackboneSpec.asked_for(weights))
    elif records.architecture in ARCHITECTURES:
        spec = BackboneSpec(architecture=records.architecture, weights=weights)
    elif records.architecture != UNVERIFIED:
        raise InputError(
            f"--weights: the records name the network {records.architecture!r}, and `hugs backbones` does not list it. "
            "Pass its frozen graph (.pb) as --weights FILE, or leave --weights out for a model that takes embeddings."
        )
    else:
        spec = BackboneSpec(weights=weights)
    model, identity = load_keras_backbone(spec)
    if identity.embedding_size != records.embedding_size:
        raise InputError(
            f"--weights: {identity.architecture} makes embeddings of {identity.embedding_size} numbers, and those of "
            f"the records have {records.embedding_size}: it did not make them. Leave --weights out for a model that "
            "takes embeddings."
        )
    return model, identity


class _HeadClassifier(tf.Module):
    """The head and the prediction ops as one object that TensorFlow can save."""

    def __init__(self, head: keras.Model, info: ModelInfo):
        super().__init__(name="classifier")
        # TensorFlow Serving restores only variables that TensorFlow tracks. Keras saves its own variables as copies
        # which the signatures do not read (Keras 3.15, `Variable._export_to_saved_model_graph`). Only
        # `tf.saved_model.load` connects the two.
        self.head = lambda embeddings: head(embeddings, training=False)
        self.head_variables = [variable.value for variable in head.variables]
        self.info = info
        self.labels = tf.constant(info.labels, tf.string)

    def classify_embeddings(self, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        found = predictions(
            self.head(embeddings),
            label_mode=self.info.label_mode,
            temperature=self.info.temperature,
            threshold=self.info.threshold,
        )
        return {**found, "label": tf.gather(self.labels, found["prediction"])}


class _ImageClassifier(_HeadClassifier):
    """Decoding, backbone and head."""

    def __init__(self, backbone: keras.Model, head: keras.Model, info: ModelInfo):
        super().__init__(head, info)
        self.backbone = lambda pixels: backbone(pixels, training=False)
        self.backbone_variables = [variable.value for variable in backbone.variables]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="key"),
            tf.TensorSpec([None], tf.string, name="image_bytes"),
        ],
        autograph=False,
    )
    def classify_images(self, key: tf.Tensor, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"key": tf.identity(key), **self.classify_without_keys(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def classify_without_keys(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # This calls the other signature, so that decoding and the network are traced, saved and loaded only once.
        embedded = self.embed_images(image_bytes)
        error = embedded["error"]
        return {**without_bad(self.classify_embeddings(embedded["embeddings"]), error), "error": error}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def embed_images(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = self.info.image
        pixels, error = decode_images_or_errors_graph(image_bytes, image.size)
        embeddings = self.backbone(scale_pixels(pixels, image.scaling))
        return {"embeddings": tf.where((error == "")[:, tf.newaxis], embeddings, 0.0), "error": error}


def save_model(
    model_dir: str,
    *,
    backbone: keras.Model | None,
    head: keras.Model,
    labels: tuple[str, ...],
    identity: BackboneIdentity,
    label_mode: LabelMode = "single",
    temperature: float = 1.0,
    threshold: float = 0.0,
    backbone_verified: bool = True,
    page: PageOptions | None = None,
) -> ModelInfo:
    """Writes a classifier as one SavedModel.

    Signatures:
      `serving_default`: `key` string [n], `image_bytes` string [n] (one encoded image each) to the same `key`,
        `prediction` int64 [n] (id of the best label), `label` string [n] (its name), `scores`
        float32 [n, num_labels], `confident` bool [n] (whether the best score reaches the threshold), `error` string
        [n] (empty).
      `images`: the same without `key`.
      `embed_images`: `image_bytes` string [n] to `embeddings` float32 [n, embedding_size], as the pipeline makes them,
        and `error`.
      `embeddings`: `embeddings` float32 [n, embedding_size] to `prediction`, `label`, `scores`, `confident`.

    An image that cannot be decoded fails for itself alone. Its `error` is `reason: message`, as
    `decode_images_or_errors_graph` gives it. Its `prediction` is -1, its `label` is empty, its scores and embeddings
    are 0 (JSON has no NaN), and it is not `confident`.

    Without a backbone, `serving_default` is `embeddings`, and there are no `images` and `embed_images`.

    In the JSON of TensorFlow Serving and Vertex AI, each row is an instance and bytes are written as `{"b64": ...}`:
    `{"instances": [{"key": "1", "image_bytes": {"b64": "/9j/4AAQ..."}}]}`. TensorFlow Serving wants all inputs of a
    signature, so a request without keys names the other one:
    `{"signature_name": "images", "instances": [{"image_bytes": {"b64": "/9j/4AAQ..."}}]}`.

    Args:
      model_dir: a new local folder.
      backbone: scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size]; None for a model that takes
        only embeddings.
      head: float32 [n, embedding_size] to logits, float32 [n, num_labels].
      labels: the dictionary.
      identity: the identity of the backbone.
      label_mode: "single" if the scores are a softmax and add up to 1, "multi" if each score is a separate sigmoid.
      temperature: the logits are divided by it before they become scores.
      threshold: the model is confident if the best score is at least this.
      backbone_verified: False if nothing shows that this backbone made the records.
      page: how the web page of a server words and colours the answers; None for its defaults.

    Returns:
      The description that was stored with the model.
    """
    info = ModelInfo(
        labels=labels,
        backbone=identity,
        head_digest=head_digest(head),
        label_mode=label_mode,
        temperature=temperature,
        threshold=threshold,
        backbone_verified=backbone_verified,
        takes_images=backbone is not None,
        page=page or PageOptions(),
    )
    module = _HeadClassifier(head, info) if backbone is None else _ImageClassifier(backbone, head, info)
    spec = tf.TensorSpec([None, head.input_shape[-1]], tf.float32, name="embeddings")
    embeddings = tf.function(module.classify_embeddings, autograph=False).get_concrete_function(spec)
    signatures = {"serving_default": embeddings, "embeddings": embeddings}
    if isinstance(module, _ImageClassifier):
        signatures |= {
            "serving_default": module.classify_images,
            "images": module.classify_without_keys,
            "embed_images": module.embed_images,
        }
    # Nobody trains the exported model, and gradients of activations such as swish cannot be saved.
    without_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, model_dir, signatures=signatures, options=without_gradients)
    # TensorFlow Serving expects files that the graph does not use in assets.extra.
    write_head(model_dir, head, info)
    info_path = os.path.join(model_dir, MODEL_INFO_PATH)
    os.makedirs(os.path.dirname(info_path), exist_ok=True)
    with open(info_path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(info.to_json(), indent=2, ensure_ascii=False) + "\n")
    return info
