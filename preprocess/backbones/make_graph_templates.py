"""Makes the graph templates, the files from which networks are prepared without TensorFlow (`graph_template`).

    python -m preprocess.backbones.make_graph_templates

Give this command after an update of Keras or TensorFlow. Until then networks are prepared with TensorFlow, which takes
some seconds more, and tests fail that compare both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.graph_template import Blank, GraphTemplate, WeightedLayer, versions_here
from preprocess.backbones.inference_graph import fold_normalization, inference_graph, normalizations_to_fold

# Arrays of fewer numbers may be stored in another way. No network of the table has one.
_FEWEST_NUMBERS = 4


def make_template(model: Any, scaling: str) -> GraphTemplate:
    """The template of the graphs of a network. The weights of the model are replaced and frozen.

    Args:
      model: the Keras model, as for `inference_graph`.
      scaling: of the pixels, as there.

    Raises:
      ValueError: the network has weights that its graph does not hold as they are, or folded.
    """
    model.trainable = False  # as `load_keras_backbone` gives it: this decides the order of nodes
    random = np.random.RandomState(0)
    # No two arrays are equal, so each is found in the graph by its content.
    model.set_weights([random.uniform(0.5, 1.5, array.shape).astype(np.float32) for array in model.get_weights()])
    graph = inference_graph(model, scaling)
    layers = [layer for layer in model.layers if layer.weights]
    if [id(weight) for layer in layers for weight in layer.weights] != [id(weight) for weight in model.weights]:
        raise ValueError("the order of the weights is not that of the layers")
    places: list[tuple[int, int, Blank]] = []
    for content, blank in _contents(layers, normalizations_to_fold(model)):
        start = graph.find(content)
        if start < 0 or len(content) < _FEWEST_NUMBERS * 4 or graph.find(content, start + 1) >= 0:
            raise ValueError(f"{layers[blank.layer].name}: {blank.weight} is not in the graph, or not once")
        places.append((start, start + len(content), blank))
    pieces: list[bytes | Blank] = []
    at = 0
    for start, end, blank in sorted(places, key=lambda place: place[0]):
        pieces += [graph[at:start], blank]
        at = end
    pieces.append(graph[at:])
    return GraphTemplate(
        versions=versions_here(),
        layers=tuple(
            WeightedLayer(
                layer.name,
                type(layer).__name__,
                tuple((weight.name, tuple(weight.shape)) for weight in layer.weights),
            )
            for layer in layers
        ),
        pieces=tuple(pieces),
    )


def _contents(layers: Sequence[Any], folded: dict[str, Any]) -> list[tuple[bytes, Blank]]:
    """The bytes of each array that a graph holds, and what it is."""
    position = {layer.name: number for number, layer in enumerate(layers)}
    folded_away = {layer.name for layer in folded.values()}
    found = []
    for number, layer in enumerate(layers):
        if layer.name in folded_away:
            continue
        normalization = folded.get(layer.name)
        if normalization is None:
            found += [(weight.numpy().tobytes(), Blank(number, weight.name)) for weight in layer.weights]
            continue
        named = {weight.name: weight.numpy() for weight in normalization.weights}
        kernel, *bias = (weight.numpy() for weight in layer.weights)
        arrays = fold_normalization(
            kernel,
            bias[0] if bias else None,
            gamma=named.get("gamma"),
            beta=named.get("beta"),
            mean=named["moving_mean"],
            variance=named["moving_variance"],
            epsilon=normalization.epsilon,
            depthwise=type(layer).__name__ == "DepthwiseConv2D",
        )
        for weight, array in zip((layer.weights[0].name, "bias"), arrays, strict=True):
            blank = Blank(number, weight, position[normalization.name], normalization.epsilon)
            found.append((array.tobytes(), blank))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    for architecture in ARCHITECTURES.values():
        if architecture.template is not None:
            template = make_template(architecture.build(), architecture.image.scaling)
            print(template.save(architecture.template))
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
