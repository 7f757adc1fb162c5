"""Graph templates: the graph of a network of the table without its weights. Weights make it whole without TensorFlow.

What TensorFlow and Keras make of a network (`inference_graph`) differs from weights to weights in the weights alone. So
the other bytes of the `tf.GraphDef` lie in a file of this package, which `make_graph_templates` makes. Weights are read
with h5py or from PyTorch's file, or drawn; normalizations are folded with the arithmetic of `inference_graph`; and all
is written between the bytes of the template. That takes one second for Inception v3, and TensorFlow and Keras take
eight. The bytes are those that TensorFlow would have written, which tests hold, so digests and jobs stay as they were.

A template is used only with the versions of TensorFlow and Keras that it was made with.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from preprocess.backbones.inference_graph import fold_normalization

_FOLDER = os.path.join(os.path.dirname(__file__), "graph_templates")
_MADE_WITH = ("keras", "tensorflow")


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A layer of a network that has weights.

    Attributes:
      name: the layer's name.
      kind: the name of its Keras class.
      weights: name and shape of each weight, in the order of Keras.
    """

    name: str
    kind: str
    weights: tuple[tuple[str, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Blank:
    """A place in the graph that takes the numbers of one array.

    Attributes:
      layer: the position of the layer that the array is of.
      weight: the name of the array: of a weight of the layer, or "bias" for the one that a normalization brings.
      normalization: the position of the normalization that is folded into the layer; None for the weight as it is.
      epsilon: of the normalization.
    """

    layer: int
    weight: str
    normalization: int | None = None
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class GraphTemplate:
    """The graph of a network without its weights.

    Attributes:
      versions: of the packages that made it.
      layers: all layers with weights, in the order of the Keras model.
      pieces: what the serialized graph consists of, in order: bytes as they are, and blanks.
    """

    versions: dict[str, str | None]
    layers: tuple[WeightedLayer, ...]
    pieces: tuple[bytes | Blank, ...]

    @property
    def fits_versions_here(self) -> bool:
        """Whether the packages installed here would make the same graph."""
        return self.versions == versions_here()

    def fill(self, weights: Sequence[Sequence[np.ndarray]]) -> Iterator[bytes | memoryview]:
        """The serialized graph, piece by piece.

        Args:
          weights: the weights of each layer, float32, of the shapes that `layers` gives.

        Raises:
          ValueError: they have other numbers, types or shapes.
        """
        self.check(weights)
        folded: dict[int, list[np.ndarray]] = {}
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            if piece.normalization is None:
                array = self._named(weights, piece.layer)[piece.weight]
            else:
                if piece.layer not in folded:
                    folded[piece.layer] = self._fold(weights, piece)
                # A convolution comes before its bias, and both are needed once.
                array = folded[piece.layer][piece.weight == "bias"]
                if piece.weight == "bias":
                    del folded[piece.layer]
            yield np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data

    def _named(self, weights: Sequence[Sequence[np.ndarray]], layer: int) -> dict[str, np.ndarray]:
        names = (name for name, _ in self.layers[layer].weights)
        return dict(zip(names, weights[layer], strict=True))

    def _fold(self, weights: Sequence[Sequence[np.ndarray]], blank: Blank) -> list[np.ndarray]:
        assert blank.normalization is not None
        normalization = self._named(weights, blank.normalization)
        kernel, *bias = weights[blank.layer]
        return fold_normalization(
            kernel,
            bias[0] if bias else None,
            gamma=normalization.get("gamma"),
            beta=normalization.get("beta"),
            mean=normalization["moving_mean"],
            variance=normalization["moving_variance"],
            epsilon=blank.epsilon,
            depthwise=self.layers[blank.layer].kind == "DepthwiseConv2D",
        )

    def check(self, weights: Sequence[Sequence[np.ndarray]]) -> None:
        """Raises ValueError if weights have other numbers, types or shapes than the template takes."""
        for layer, arrays in zip(self.layers, weights, strict=True):
            for (name, shape), array in zip(layer.weights, arrays, strict=True):
                if array.shape != shape or array.dtype != np.float32:
                    raise ValueError(f"{layer.name}: {name} is {array.dtype} {array.shape}, and not float32 {shape}")

    def save(self, name: str, folder: str = _FOLDER) -> str:
        """Writes the file that `find_template` reads, and returns its path. The same template gives the same bytes."""
        content = {
            "versions": self.versions,
            "layers": [dataclasses.astuple(layer) for layer in self.layers],
            "pieces": [
                base64.b64encode(piece).decode() if isinstance(piece, bytes) else dataclasses.astuple(piece)
                for piece in self.pieces
            ],
        }
        path = os.path.join(folder, f"{name}.json.gz")
        with open(path, "wb") as stream, gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed:
            packed.write(json.dumps(content).encode())
        return path


def versions_here() -> dict[str, str | None]:
    """The installed versions of the packages that decide a graph; None for one that is missing."""
    found: dict[str, str | None] = {}
    for package in _MADE_WITH:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def find_template(name: str, folder: str = _FOLDER) -> GraphTemplate | None:
    """The template of this name; None if there is none, or if packages of other versions are installed here."""
    try:
        with gzip.open(os.path.join(folder, f"{name}.json.gz")) as stream:
            content: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        return None
    template = GraphTemplate(
        versions=content["versions"],
        layers=tuple(
            WeightedLayer(name, kind, tuple((weight, tuple(shape)) for weight, shape in weights))
            for name, kind, weights in content["layers"]
        ),
        pieces=tuple(
            base64.b64decode(piece) if isinstance(piece, str) else Blank(*piece) for piece in content["pieces"]
        ),
    )
    return template if template.fits_versions_here else None
