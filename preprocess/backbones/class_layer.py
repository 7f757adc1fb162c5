"""The class layer of a network: the head that gives ImageNet's classes from the embeddings that the network makes.

For most networks the classes are one dense layer on the embedding. Then the network can be run as always, by any
engine and in any precision, and its classes follow from the records.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs.errors import InputError
from preprocess.answers.head import Dense, Head
from preprocess.backbones.backbone import BackboneSpec, complete_spec, load_classifier, load_keras_backbone
from preprocess.backbones.tensorflow_import import without_tensorflow_noise
from preprocess.images.probe_images import probe_images
from preprocess.records.backbone_identity import BackboneIdentity

_PROBES = 2
# The two are computed by the same library, in float32.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassHead:
    """The head for a network's own classes.

    Attributes:
      spec: the network whose embeddings the head takes. For a network from a file, it is the file with the tensor of
        its classes as its output.
      identity: of that network.
      head: embeddings to the probabilities of the classes. For a network from a file it has no layer.
      num_classes: how many there are.
    """

    spec: BackboneSpec
    identity: BackboneIdentity
    head: Head
    num_classes: int


def class_head(spec: BackboneSpec) -> ClassHead:
    """The head for a network's own classes. It takes seconds, for the network is loaded and run.

    Args:
      spec: the network; what its file says need not be complete.

    Raises:
      InputError: the network has no classes, they are not one layer on its embedding, or its weights cannot be had.
    """
    classifier = load_classifier(spec)
    pixels = probe_images(_PROBES, size=classifier.image.size)
    wanted = classifier.scores(pixels)
    num_classes = wanted.shape[1]
    if spec.is_file:
        spec = complete_spec(dataclasses.replace(spec, output_tensor=classifier.output_tensor))
        head = Head(layers=(), scores="none" if _are_scores(classifier, pixels) else "softmax")
        return ClassHead(spec=spec, identity=load_keras_backbone(spec)[1], head=head, num_classes=num_classes)
    head = Head(layers=(_last_dense(classifier.model, spec),), scores="softmax")
    backbone, identity = load_keras_backbone(spec)
    fits = head.layers[0].kernel.shape[0] == identity.embedding_size
    if not fits or not np.abs(head(_embeddings(backbone, classifier, pixels)) - wanted).max() <= _TOLERANCE:
        raise InputError(
            f"backbone: the classes of {spec.architecture} are not one layer on its embedding, so they cannot be had "
            "from records. Choose another network (`hugs backbones` lists them), or use `hugs classify`."
        )
    return ClassHead(spec=spec, identity=identity, head=head, num_classes=num_classes)


def _embeddings(backbone: Any, classifier: Any, pixels: np.ndarray) -> np.ndarray:
    from preprocess.images.decode_graph import scale_pixels

    with without_tensorflow_noise():
        return np.asarray(backbone(scale_pixels(pixels, classifier.image.scaling), training=False))


def _are_scores(classifier: Any, pixels: np.ndarray) -> bool:
    """Whether a network puts out probabilities and not logits."""
    outputs = _embeddings(classifier.model, classifier, pixels)
    return bool(outputs.min() >= 0)


def _last_dense(model: Any, spec: BackboneSpec) -> Dense:
    """The last dense layer of a classifier, or the last convolution of a single pixel, which is the same."""
    for layer in reversed(model.layers):
        weights = layer.get_weights()
        if not weights:
            continue
        kernel = weights[0]
        if kernel.ndim == 4 and kernel.shape[:2] == (1, 1):
            kernel = kernel[0, 0]
        if kernel.ndim == 2:
            bias = weights[1] if len(weights) > 1 else np.zeros(kernel.shape[1], np.float32)
            return Dense(np.ascontiguousarray(kernel), bias)
        break
    raise InputError(f"backbone: the last layer of {spec.architecture} is not a dense layer of classes.")
