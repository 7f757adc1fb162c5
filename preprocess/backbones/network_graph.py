"""Makes the constant graph of a backbone: from its template where there is one for it, else with TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import (
    BackboneSpec,
    check_weights,
    he_normal,
    identity_of,
    load_keras_backbone,
    weights_digest,
    weights_file,
)
from preprocess.backbones.efficientnet_lite import weights_of_state
from preprocess.backbones.graph_template import GraphTemplate, WeightedLayer, find_template
from preprocess.backbones.inference_graph import inference_graph
from preprocess.backbones.torch_file import is_torch_file, read_state_dict
from preprocess.images.definition import ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import Storage

Weights = Sequence[Sequence[np.ndarray]]
"""The weights of each layer that has some, in the order of the Keras model."""

# What a weight of a network with random weights is before anything is drawn, as Keras begins.
_INITIAL = {"gamma": np.ones, "moving_variance": np.ones, "beta": np.zeros, "moving_mean": np.zeros, "bias": np.zeros}


def write_network_graph(spec: BackboneSpec, path: str, storage: Storage | None = None) -> BackboneIdentity:
    """Writes the constant graph of a backbone (`inference_graph`) to a file.

    Args:
      spec: the backbone.
      path: of the file.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Returns:
      What identifies the network.

    Raises:
      InputError: the weights are not available or do not fit the network.
    """
    check_weights(spec, storage)
    name = None if spec.is_file else ARCHITECTURES[spec.architecture].template
    template = None if name is None else find_template(name)
    weights = None if template is None else _weights_for(template, spec, storage)
    if template is None or weights is None:
        model, identity = load_keras_backbone(spec, storage)
        with open(path, "wb") as stream:
            stream.write(inference_graph(model, ImageDefinition.named(identity.image_definition).scaling))
        return identity
    with open(path, "wb") as stream:
        stream.writelines(template.fill(weights))
    return identity_of(spec, weights_digest(array for arrays in weights for array in arrays))


def _weights_for(template: GraphTemplate, spec: BackboneSpec, storage: Storage | None) -> Weights | None:
    """The weights of a backbone, of the form that its template takes; None if only Keras can read or judge them."""
    if spec.is_random:
        return _random_weights(template.layers, spec.seed)
    with weights_file(spec, storage) as path:
        try:
            read = _read_torch if is_torch_file(path) else _read_keras if path.endswith(".h5") else None
            weights = None if read is None else read(path, template.layers, spec)
            if weights is not None:
                template.check(weights)
            return weights
        except Exception:  # h5py, zipfile and pickle raise their own. The other way finds the same fault and tells it.
            return None


def _random_weights(layers: Sequence[WeightedLayer], seed: int) -> Weights:
    """What `backbone.load_keras_backbone` draws for the same seed."""
    generator = np.random.RandomState(seed)
    return [
        [
            he_normal(generator, shape, depthwise=layer.kind == "DepthwiseConv2D")
            if name.endswith("kernel")
            else _INITIAL[name](shape, np.float32)
            for name, shape in layer.weights
        ]
        for layer in layers
    ]


def _read_torch(path: str, layers: Sequence[WeightedLayer], spec: BackboneSpec) -> Weights | None:
    if not spec.architecture.startswith("efficientnet_lite"):
        return None
    named = [(layer.name, layer.kind, len(layer.weights)) for layer in layers]
    return weights_of_state(named, read_state_dict(path))


def _read_keras(path: str, layers: Sequence[WeightedLayer], spec: BackboneSpec) -> Weights | None:
    """Weights in the format of Keras 1 and 2, in which Keras publishes those of ImageNet; None for the newer format.

    Layers are told by their order, as Keras does it (`keras.src.legacy.saving.legacy_h5_format`).
    """
    import h5py  # type: ignore[import-untyped]  # here: it takes a tenth of a second

    with h5py.File(path) as file:
        group = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
        if "layer_names" not in group.attrs or len(group.get("top_level_model_weights", ())):
            return None
        stored = []
        for layer in group.attrs["layer_names"]:
            of_layer = group[layer]
            if names := list(of_layer.attrs["weight_names"]):
                stored.append([np.asarray(of_layer[name]) for name in names])
    return stored if len(stored) == len(layers) else None
