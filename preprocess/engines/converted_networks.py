"""Networks in the form that engines need. If they are in the cache on disk, TensorFlow and Keras are not needed."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from configs.activity import doing
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import IMAGENET, BackboneSpec, check_weights
from preprocess.backbones.inference_graph import GRAPH_VERSION
from preprocess.backbones.network_files import digest_of_network, network_file_copy
from preprocess.backbones.network_graph import write_network_graph
from preprocess.engines.int8 import CALIBRATION_VERSION, calibrate, digest_of_pixels
from preprocess.engines.libraries import versions_of
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.openvino_engine import read_network
from preprocess.engines.openvino_import import import_openvino
from preprocess.engines.operations import OPERATIONS_VERSION, Operations, read_graph, read_operations
from preprocess.images.definition import ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import Storage
from preprocess.storage.digests import digest_of_file
from preprocess.storage.uris import has_scheme

_GRAPH = "graph.pb"
_IDENTITY = "identity.json"
_INT8 = "int8.xml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A constant graph in a file.

    Attributes:
      graph_path: the path of the file. The file exists as long as the cache that it came from.
      graph_sha256: the SHA-256 of its content, 64 hex digits.
      identity: the network.
    """

    graph_path: str
    graph_sha256: str
    identity: BackboneIdentity

    @property
    def key(self) -> dict[str, Any]:
        """The fields that decide the network's numbers: its identity without the name of the weights file."""
        return {**self.identity.to_json(), "weights": None}

    @property
    def image(self) -> ImageDefinition:
        """How images become its pixels."""
        return ImageDefinition.named(self.identity.image_definition)

    @property
    def graph(self) -> bytes:
        """The file's content, a serialized `tf.GraphDef`."""
        with open(self.graph_path, "rb") as stream:
            return stream.read()


def load_network(spec: BackboneSpec, cache: ModelCache, storage: Storage | None = None) -> Network:
    """The constant graph of a backbone.

    Args:
      spec: the backbone.
      cache: where it is looked up and kept.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: the weights are not available or do not fit the network.
    """

    def write(folder: str) -> None:
        with doing("preparing the network; the next run will find it prepared"):
            _write_graph(spec, folder, storage)

    folder = cache.find_or_make(_graph_key(spec), write)
    with open(os.path.join(folder, _IDENTITY), encoding="utf-8") as stream:
        identity = BackboneIdentity.from_json(json.load(stream), where=folder)
    # The key contains the digest of the weights and not their path, because the file may have moved.
    graph_path = os.path.join(folder, _GRAPH)
    return Network(
        graph_path=graph_path,
        graph_sha256=cache.sha256_of(graph_path),
        identity=dataclasses.replace(identity, weights=spec.weights),
    )


def load_operations(network: Network, cache: ModelCache) -> Operations:
    """The network as operations and arrays, for the engine of JAX.

    Args:
      network: the network.
      cache: where it is looked up and kept.
    """
    key = {"kind": "operations", "network": network.key, "graph": network.graph_sha256, "code": OPERATIONS_VERSION}
    return read_operations(cache.find_or_make(key, lambda folder: read_graph(network.graph).save(folder)))


def load_int8_network(network: Network, pixels: np.ndarray, cache: ModelCache) -> Any:
    """The network as an int8 `ov.Model`, calibrated on images.

    Args:
      network: the network to calibrate.
      pixels: uint8 [n, size, size, 3], the images.
      cache: where it is looked up and kept.

    Raises:
      InputError: OpenVINO is not installed, or the images are too few.
    """
    key = _int8_key(network, digest_of_pixels(pixels))

    def write(folder: str) -> None:
        quantized = calibrate(read_network(network.graph_path), pixels)
        import_openvino().save_model(quantized, os.path.join(folder, _INT8), compress_to_fp16=False)

    return read_network(os.path.join(cache.find_or_make(key, write), _INT8))


def find_int8_network(network: Network, calibration: str, cache: ModelCache) -> Any | None:
    """The int8 `ov.Model` that an earlier run made with images of this digest; None if the cache does not hold it."""
    folder = cache.find(_int8_key(network, calibration))
    return None if folder is None else read_network(os.path.join(folder, _INT8))


def _int8_key(network: Network, calibration: str) -> dict[str, Any]:
    return {
        "kind": "int8",
        "network": network.key,
        "pixels": calibration,
        "code": [GRAPH_VERSION, CALIBRATION_VERSION],
        "versions": versions_of("numpy", "openvino"),
    }


def _graph_key(spec: BackboneSpec) -> dict[str, Any] | None:
    """The key of the graph of a spec; None if the weights must be loaded to know the key."""
    weights: str
    if spec.is_random:
        weights = f"random {spec.seed}"
    elif spec.weights == IMAGENET:
        weights = f"imagenet {_digest_of_imagenet(spec)}"
    elif spec.staged is not None:
        weights = f"file {spec.staged.sha256}"
    elif has_scheme(spec.weights):
        return None
    else:
        check_weights(spec)
        with network_file_copy(spec.weights) as path:
            weights = f"file {digest_of_network(path)}"
    tensors = {"tensors": [spec.input_tensor, spec.output_tensor]} if spec.is_file else {}
    return {
        "kind": "graph",
        "architecture": spec.architecture,
        "weights": weights,
        "image_definition": spec.image.name,
        **tensors,
        "code": GRAPH_VERSION,
        # Keras defines the architecture, NumPy draws random weights, TensorFlow writes the graph.
        "versions": versions_of("keras", "numpy", "tensorflow"),
    }


def _digest_of_imagenet(spec: BackboneSpec) -> str:
    """As Keras gives it; of the file itself, fetched if it is not here, for those for which Keras gives none."""
    file = ARCHITECTURES[spec.architecture].imagenet
    if file.digest is not None:
        return file.digest
    return spec.staged.sha256 if spec.staged is not None else digest_of_file(file.fetch())


def _write_graph(spec: BackboneSpec, folder: str, storage: Storage | None) -> None:
    identity = write_network_graph(spec, os.path.join(folder, _GRAPH), storage)
    with open(os.path.join(folder, _IDENTITY), "w", encoding="utf-8") as stream:
        json.dump(identity.to_json(), stream)
