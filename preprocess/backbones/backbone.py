"""Backbones: the networks that make embeddings, and their weights.

The table `ARCHITECTURES` lists the networks that `--backbone` may name. The pipeline and the exported model both get
their network from `load_keras_backbone`, so they always use the same network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from configs.errors import InputError, cause_in_one_line, did_you_mean
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.backbones.weights_files import (
    PublishedFile,
    StagedFile,
    check_file,
    check_published,
    fetch_published,
    local_copy,
    staged_copy,
)
from preprocess.images.decode import IMAGE_DEFINITION, IMAGE_SIZE
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import Storage
from preprocess.storage.digests import digest_of_file

IMAGENET = "imagenet"
RANDOM = "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that `--backbone` may name.

    Attributes:
      embedding_size: floats in one embedding.
      build: makes the Keras model without weights: float32 [n, 299, 299, 3] in [-1, 1] to float32
        [n, embedding_size].
      imagenet: its ImageNet weights, as Keras publishes and checks them.
    """

    embedding_size: int
    build: Callable[[], Any]
    imagenet: PublishedFile


def _build_inception_v3() -> Any:
    import_tensorflow()
    import keras

    return keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
    )


ARCHITECTURES: dict[str, Architecture] = {
    "inception_v3": Architecture(
        embedding_size=2048,
        build=_build_inception_v3,
        imagenet=PublishedFile(
            url="https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            md5="bcbd6486424b2319ff4ef7d526e38f63",
        ),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The backbone that a user asks for.

    Attributes:
      architecture: a key of `ARCHITECTURES`.
      weights: "imagenet", "random", or the path, local or gs://, of a weights file that Keras can read (.weights.h5,
        .h5, .keras).
      seed: the seed of random weights; other weights ignore it.
      staged: a copy of the weights that workers can read (`backbones.staged_weights`). Its location is not a part of
        the network's identity.

    Raises:
      InputError: the architecture is unknown, or the seed is out of range.
    """

    architecture: str = "inception_v3"
    weights: str = IMAGENET
    seed: int = 0
    staged: StagedFile | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise InputError(
                f"backbone: must be one of {', '.join(ARCHITECTURES)}."
                f"{did_you_mean(self.architecture, ARCHITECTURES)} Received: {self.architecture!r}"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: must be from 0 to 4294967295. Received: {self.seed}")

    @property
    def is_random(self) -> bool:
        """True if the weights are random numbers and were not trained."""
        return self.weights == RANDOM


def check_weights(spec: BackboneSpec, storage: Storage | None = None) -> None:
    """Checks in seconds, without loading anything, that the weights are available.

    Args:
      spec: the backbone.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: ImageNet weights are neither cached nor can be downloaded, or the weights file is missing.
    """
    if spec.is_random or spec.staged is not None:
        return
    if spec.weights == IMAGENET:
        check_published(ARCHITECTURES[spec.architecture].imagenet)
    else:
        check_file(spec.weights, storage)


def _draw_random_weights(model: Any, seed: int) -> None:
    """Sets every kernel to He-normal values, which keep the scale of activations through ReLU layers.

    He et al., 2015, https://arxiv.org/abs/1502.01852: the standard deviation is sqrt(2 / fan_in). NumPy's RandomState
    draws the values. Its stream is frozen (NEP 19), so a seed gives the same network on every machine and with every
    version. Batch normalization keeps its initial values, with which it does not change its input.
    """
    generator = np.random.RandomState(seed)
    values = []
    for variable in model.weights:
        if variable.path.endswith("kernel"):
            fan_in = math.prod(variable.shape[:-1])
            kernel = generator.standard_normal(variable.shape) * math.sqrt(2.0 / fan_in)
            values.append(kernel.astype(np.float32))
        else:
            values.append(variable.numpy())
    model.set_weights(values)


@contextlib.contextmanager
def _weights_file(spec: BackboneSpec, storage: Storage | None) -> Iterator[str]:
    """The path of the spec's weights on this machine. It is valid within the `with` block."""
    published = ARCHITECTURES[spec.architecture].imagenet
    if spec.staged is not None:
        # A worker reads the staged copy and does not download the file, unless its container already has the file.
        kept = published.cache_path
        if spec.weights == IMAGENET and os.path.isfile(kept) and digest_of_file(kept) == spec.staged.sha256:
            yield kept
            return
        with staged_copy(spec.staged, storage) as path:
            yield path
    elif spec.weights == IMAGENET:
        yield fetch_published(published)
    else:
        with local_copy(spec.weights, storage) as path:
            yield path


def _load_file(model: Any, path: str, spec: BackboneSpec) -> None:
    import keras

    try:
        if path.endswith(".keras"):
            model.set_weights(keras.models.load_model(path, compile=False).get_weights())
        else:
            model.load_weights(path)
    except Exception as error:  # h5py, zipfile, Keras and TensorFlow each raise their own.
        raise InputError(
            f"weights: {spec.weights!r} does not fit the network without its classification top "
            f"({cause_in_one_line(error)}). Pass a .weights.h5, .h5 (notop) or .keras file of the same architecture."
        ) from error


def _weights_digest(model: Any) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"


def load_keras_backbone(spec: BackboneSpec, storage: Storage | None = None) -> tuple[Any, BackboneIdentity]:
    """Builds the network and gives it its weights.

    Args:
      spec: the backbone.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Returns:
      The Keras model, float32 [n, 299, 299, 3] in [-1, 1] to float32 [n, embedding_size], and its identity.

    Raises:
      InputError: the weights are not available or do not fit the network.
    """
    check_weights(spec, storage)
    architecture = ARCHITECTURES[spec.architecture]
    model = architecture.build()
    if spec.is_random:
        _draw_random_weights(model, spec.seed)
    else:
        with _weights_file(spec, storage) as path:
            _load_file(model, path, spec)
    model.trainable = False
    # This checks the network itself, so that embeddings of a wrong length are found now and not in training.
    if model.output_shape != (None, architecture.embedding_size):
        raise AssertionError(f"{spec.architecture} puts out {model.output_shape}")
    identity = BackboneIdentity(
        architecture=spec.architecture,
        weights=spec.weights,
        seed=spec.seed if spec.is_random else None,
        weights_digest=_weights_digest(model),
        embedding_size=architecture.embedding_size,
        image_definition=IMAGE_DEFINITION,
    )
    return model, identity
