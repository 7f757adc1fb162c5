"""Backbones: the networks that make embeddings, and their weights.

The pipeline and the exported model both get their network from `load_keras_backbone`, so they always use the same one.
A backbone is a network of the table `ARCHITECTURES`, or a file or folder that holds a whole network
(`backbones.network_files`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from configs.errors import InputError, cause_in_one_line, did_you_mean
from configs.recipe import BackboneOptions
from configs.several_backbones import has_several
from preprocess.backbones import efficientnet_lite
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.network_files import (
    NETWORK_FILES,
    check_network_file,
    kind_of,
    network_file_copy,
    read_network_file,
)
from preprocess.backbones.torch_file import UnsafePickleError, is_torch_file, read_state_dict
from preprocess.backbones.weights_files import StagedFile, check_file, local_copy, staged_copy
from preprocess.images.decode import IMAGE_SIZE
from preprocess.images.definition import DEFAULT_SCALING, ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import Storage
from preprocess.storage.digests import digest_of_file

IMAGENET = "imagenet"
RANDOM = "random"

# What can be said of a network from a file; those of the table have their own.
_OF_FILE = ("input_tensor", "output_tensor", "image_size", "scaling")
BACKBONE_OPTIONS = ("backbone", "weights", "seed", *_OF_FILE)
"""The options of `pipelines.embed` that say which network it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The backbone that a user asks for.

    Attributes:
      architecture: a key of `ARCHITECTURES`, or one of `NETWORK_FILES` if the network comes from a file.
      weights: "imagenet", "random", or the path, local or gs://, of a weights file (.weights.h5, .h5 or .keras of
        Keras, .pth of PyTorch). For a network from a file, the path of that file or folder.
      seed: of random weights; ignored for all others.
      staged: those weights where a worker can read them (`backbones.staged_weights`); where they lie is no part of
        the network's identity.
      input_tensor: of a network from a file: the tensor that takes the pixels; None for what the file says.
      output_tensor: likewise, the tensor that holds the embeddings.
      image_size: likewise, the side of its input.
      scaling: likewise, how it wants pixels, as in `images.definition`.

    Raises:
      InputError: the architecture is unknown, the seed is out of range, or a network of the table is told what only a
        file can be told.
    """

    architecture: str = "inception_v3"
    weights: str = IMAGENET
    seed: int = 0
    staged: StagedFile | None = None
    input_tensor: str | None = None
    output_tensor: str | None = None
    image_size: int | None = None
    scaling: str | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES and not self.is_file:
            raise InputError(
                f"backbone: there is no network {self.architecture!r}.{did_you_mean(self.architecture, ARCHITECTURES)} "
                "`hugs backbones` lists them. A file or folder that holds a network is named by its path, which has a "
                "slash in it or exists."
            )
        for field, value in _asked_of_file(self).items():
            if value is not None and not self.is_file:
                raise InputError(
                    f"{field}: belongs to a --backbone that is a file or folder; {self.architecture} has its own. "
                    f"Received: {value!r}"
                )
        if self.is_file:
            # The definition keeps its rules for what is given.
            ImageDefinition(
                size=IMAGE_SIZE if self.image_size is None else self.image_size,
                scaling=DEFAULT_SCALING if self.scaling is None else self.scaling,
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: must be from 0 to 4294967295. Received: {self.seed}")

    @classmethod
    def asked_for(
        cls, backbone: str = "inception_v3", *, weights: str = IMAGENET, seed: int = 0, **of_file: Any
    ) -> BackboneSpec:
        """The backbone that a user names.

        Args:
          backbone: a key of `ARCHITECTURES`, or the path of a file or folder that holds a network.
          weights: of a network of the table; those of a file are in it.
          seed: of random weights.
          of_file: `input_tensor`, `output_tensor`, `image_size` and `scaling` of a file.

        Raises:
          InputError: there is no such network or file, or the values contradict each other.
        """
        kind = None if backbone in ARCHITECTURES else kind_of(backbone)
        if has_several(backbone):
            raise InputError(
                f"backbone: {backbone!r} names several networks, and one is wanted here. Several are for embedding "
                "lists (`hugs embed`, `hugs preproc`), its plan and the image of its workers."
            )
        if kind is None:
            return cls(architecture=backbone, weights=weights, seed=seed, **of_file)
        if weights != IMAGENET:
            raise InputError(
                f"weights: {backbone!r} is a network with its weights, so --weights does not go with it. "
                f"Received: {weights!r}"
            )
        return cls(architecture=kind, weights=backbone, seed=seed, **of_file)

    @classmethod
    def of_options(cls, options: BackboneOptions) -> BackboneSpec:
        """The backbone that the options of a recipe and of the flags describe; raises as `asked_for`."""
        return cls.asked_for(**{name: getattr(options, name) for name in BACKBONE_OPTIONS})

    @classmethod
    def of_identity(cls, identity: BackboneIdentity, *, weights: str | None = None) -> BackboneSpec:
        """The backbone that made a set of records.

        Args:
          identity: from the manifest of the set.
          weights: where the weights, or the file of the network, are now; None for where the identity says.

        Raises:
          InputError: this version has no such network or no such definition of an image.
        """
        of_file: dict[str, Any] = {}
        if identity.architecture in NETWORK_FILES:
            image = ImageDefinition.named(identity.image_definition)
            of_file = {
                "input_tensor": identity.input_tensor,
                "output_tensor": identity.output_tensor,
                "image_size": image.size,
                "scaling": image.scaling,
            }
        return cls(
            architecture=identity.architecture,
            weights=identity.weights if weights is None else weights,
            seed=identity.seed or 0,
            **of_file,
        )

    @property
    def is_random(self) -> bool:
        """True if the weights are random numbers and were not trained."""
        return self.weights == RANDOM

    @property
    def is_file(self) -> bool:
        """True if the network comes from a file or a folder, not from the table."""
        return self.architecture in NETWORK_FILES

    @property
    def is_complete(self) -> bool:
        """False if the file has yet to be looked at for what nobody has said (`complete_spec`)."""
        return not self.is_file or None not in _asked_of_file(self).values()

    @property
    def image(self) -> ImageDefinition:
        """How images become its input. A network from a file must be complete."""
        if not self.is_file:
            return ARCHITECTURES[self.architecture].image
        if self.image_size is None or self.scaling is None:
            raise ValueError(f"{self} is not complete")
        return ImageDefinition(size=self.image_size, scaling=self.scaling)

    @property
    def name(self) -> str:
        """What `--backbone` was, with the tensors that were named."""
        tensors = f" {self.input_tensor or ''}->{self.output_tensor or ''}"
        return f"{self.weights}{tensors if len(tensors) > 3 else ''}" if self.is_file else self.architecture


def complete_spec(spec: BackboneSpec, storage: Storage | None = None) -> BackboneSpec:
    """The same backbone, with what its file says of size, scaling and tensors where nobody said it.

    Args:
      spec: the backbone.
      storage: opens a file in a bucket, with the credentials of the job; None for those of this machine.

    Raises:
      InputError: the file cannot be used as a backbone, or it does not say what is missing.
    """
    if spec.is_complete:
        return spec
    with weights_file(spec, storage) as path:
        found = read_network_file(path, spec.architecture, **_asked_of_file(spec), named=spec.weights)
    return dataclasses.replace(
        spec,
        input_tensor=found.input_tensor,
        output_tensor=found.output_tensor,
        image_size=found.image.size,
        scaling=found.image.scaling,
    )


def _asked_of_file(spec: BackboneSpec) -> dict[str, Any]:
    return {field: getattr(spec, field) for field in _OF_FILE}


def check_weights(spec: BackboneSpec, storage: Storage | None = None) -> None:
    """Checks in seconds, without loading anything, that the weights are available.

    Args:
      spec: the backbone.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: ImageNet weights are neither on this machine nor can be downloaded, or the file is missing.
    """
    if spec.is_random or spec.staged is not None:
        return
    if spec.is_file:
        check_network_file(spec.weights, storage)
    elif spec.weights == IMAGENET:
        ARCHITECTURES[spec.architecture].imagenet.check()
    else:
        check_file(spec.weights, storage)


def _draw_random_weights(model: Any, seed: int) -> None:
    """Sets every kernel to He-normal values, which keep the scale of activations through ReLU layers.

    He et al., 2015, https://arxiv.org/abs/1502.01852: the standard deviation is sqrt(2 / fan_in). NumPy's RandomState
    draws the values. Its stream is frozen (NEP 19), so a seed gives the same network on every machine and with every
    version. Batch normalization keeps its initial values, with which it does not change its input.
    """
    import keras

    depthwise = {
        layer.kernel.path if isinstance(layer, keras.layers.DepthwiseConv2D) else layer.depthwise_kernel.path
        for layer in model.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D)
    }
    generator = np.random.RandomState(seed)
    model.set_weights(
        [
            he_normal(generator, variable.shape, depthwise=variable.path in depthwise)
            if variable.path.endswith("kernel")
            else variable.numpy()
            for variable in model.weights
        ]
    )


def he_normal(generator: np.random.RandomState, shape: Sequence[int], *, depthwise: bool) -> np.ndarray:
    """A random kernel, float32: normal, with a standard deviation of sqrt(2 / fan_in) (He et al., 2015)."""
    # A depthwise kernel, [height, width, channels, multiplier], sees one channel at a time.
    fan_in = math.prod(shape[: 2 if depthwise else -1])
    return (generator.standard_normal(tuple(shape)) * math.sqrt(2.0 / fan_in)).astype(np.float32)


@contextlib.contextmanager
def weights_file(spec: BackboneSpec, storage: Storage | None) -> Iterator[str]:
    """The path of the spec's weights on this machine, for as long as the `with` block."""
    if spec.staged is not None:
        # What is staged is read rather than fetched from its publisher, but an image may have it already.
        kept = ARCHITECTURES[spec.architecture].imagenet.find() if spec.weights == IMAGENET else None
        if kept is not None and digest_of_file(kept) == spec.staged.sha256:
            yield kept
            return
        with staged_copy(spec.staged, storage) as path:
            yield path
    elif spec.weights == IMAGENET:
        yield ARCHITECTURES[spec.architecture].imagenet.fetch()
    elif spec.is_file:
        with network_file_copy(spec.weights, storage) as path:
            yield path
    else:
        with local_copy(spec.weights, storage) as path:
            yield path


def _load_file(model: Any, path: str, spec: BackboneSpec) -> None:
    import keras

    try:
        if is_torch_file(path):
            _set_torch_state(model, path, spec)
        elif path.endswith(".keras"):
            model.set_weights(keras.models.load_model(path, compile=False).get_weights())
        else:
            model.load_weights(path)
    except UnsafePickleError as error:
        raise InputError(f"weights: {spec.weights!r} is not read: {error}. Nothing of it was run.") from error
    except Exception as error:  # h5py, zipfile, pickle, Keras and TensorFlow each raise their own.
        raise InputError(
            f"weights: {spec.weights!r} does not fit the network {spec.architecture} "
            f"({cause_in_one_line(error)}). Pass a .weights.h5, .h5 (notop) or .keras file of the same architecture."
        ) from error


def _set_torch_state(model: Any, path: str, spec: BackboneSpec) -> None:
    state = read_state_dict(path)
    if not spec.architecture.startswith("efficientnet_lite"):
        raise ValueError("a PyTorch file, which is read for EfficientNet-Lite only")
    efficientnet_lite.set_state(model, state)


def weights_digest(arrays: Iterable[np.ndarray]) -> str:
    """The digest of the weights of a network, in the order of its Keras model."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()}"


def load_keras_backbone(spec: BackboneSpec, storage: Storage | None = None) -> tuple[Any, BackboneIdentity]:
    """Builds the network and gives it its weights.

    Args:
      spec: the backbone.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Returns:
      The Keras model, scaled pixels, float32 [n, size, size, 3], to float32 [n, embedding_size], and what identifies
      it, with the size and the scaling in its `image_definition`.

    Raises:
      InputError: the weights are not available or do not fit the network.
    """
    check_weights(spec, storage)
    if spec.is_file:
        return _load_network_file(spec, storage)
    architecture = ARCHITECTURES[spec.architecture]
    model = architecture.build()
    if spec.is_random:
        _draw_random_weights(model, spec.seed)
    else:
        with weights_file(spec, storage) as path:
            _load_file(model, path, spec)
    model.trainable = False
    # This checks the network itself, so that embeddings of a wrong length are found now and not in training.
    if model.output_shape != (None, architecture.embedding_size):
        raise AssertionError(f"{spec.architecture} puts out {model.output_shape}")
    return model, identity_of(spec, weights_digest(model.get_weights()))


def identity_of(spec: BackboneSpec, digest: str) -> BackboneIdentity:
    """What identifies a network of the table whose weights have a digest."""
    architecture = ARCHITECTURES[spec.architecture]
    return BackboneIdentity(
        architecture=spec.architecture,
        weights=spec.weights,
        seed=spec.seed if spec.is_random else None,
        weights_digest=digest,
        embedding_size=architecture.embedding_size,
        image_definition=architecture.image.name,
    )


def _load_network_file(spec: BackboneSpec, storage: Storage | None) -> tuple[Any, BackboneIdentity]:
    with weights_file(spec, storage) as path:
        found = read_network_file(path, spec.architecture, **_asked_of_file(spec), named=spec.weights)
    found.model.trainable = False
    identity = BackboneIdentity(
        architecture=spec.architecture,
        weights=spec.weights,
        seed=None,
        weights_digest=found.digest,
        embedding_size=found.model.output_shape[-1],
        image_definition=found.image.name,
        input_tensor=found.input_tensor,
        output_tensor=found.output_tensor,
    )
    return found.model, identity


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetClassifier:
    """A network with its own classes.

    Attributes:
      model: the Keras model, scaled pixels, float32 [n, size, size, 3], to probabilities, float32 [n, num_classes].
      image: how images become its input.
      output_tensor: of a network from a file: the tensor of the classes; None for all others.
    """

    model: Any
    image: ImageDefinition
    output_tensor: str | None = None

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """The probabilities of the classes, float32 [n, num_classes], for pixels, uint8 [n, size, size, 3]."""
        from preprocess.backbones.tensorflow_import import without_tensorflow_noise
        from preprocess.images.decode_graph import scale_pixels

        with without_tensorflow_noise():
            scores = np.asarray(self.model(scale_pixels(pixels, self.image.scaling), training=False))
        if scores.min() >= 0:
            return scores
        # A network from a file may put out logits: its softmax.
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def load_classifier(spec: BackboneSpec) -> ImageNetClassifier:
    """Builds a network with the classes that it was trained on, and gives it its weights.

    Args:
      spec: the network.

    Raises:
      InputError: it has no classes, or the weights cannot be had or do not fit.
    """
    if spec.is_file:
        check_network_file(spec.weights)
        with weights_file(spec, None) as path:
            found = read_network_file(path, spec.architecture, **_asked_of_file(spec), named=spec.weights, classes=True)
        return ImageNetClassifier(model=found.model, image=found.image, output_tensor=found.output_tensor)
    architecture = ARCHITECTURES[spec.architecture]
    published = architecture.imagenet_classes
    if architecture.build_classifier is None or published is None:
        raise InputError(f"backbone: {spec.architecture} has no classes of its own. `hugs backbones` says which have.")
    if spec.is_random:
        raise InputError("weights: random ones know no classes. Leave --weights out, or pass a file.")
    # Before the model, since loading TensorFlow takes seconds.
    file: contextlib.AbstractContextManager[str]
    if spec.weights == IMAGENET:
        published.check()
        file = contextlib.nullcontext(published.fetch())
    else:
        check_file(spec.weights)
        file = local_copy(spec.weights)
    model = architecture.build_classifier()
    with file as path:
        _load_file(model, path, spec)
    return ImageNetClassifier(model=model, image=architecture.image)
