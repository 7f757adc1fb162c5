"""A classifier of any frozen graph with labels, with the flags of TensorFlow's `label_image`.

Photos are decoded and resized as everywhere in this project. `label_image` resizes without looking at all pixels, so
its scores differ a little.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from configs.errors import InputError
from preprocess.backbones.class_names import class_names
from preprocess.backbones.graph_network import find_input, graph_model, input_sides
from preprocess.backbones.network_files import FROZEN_GRAPH, parse_graph
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.images.definition import MAX_IMAGE_SIZE, ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from trainer.export.classifier import BATCH_SIZE, Prediction
from trainer.export.model_info import ModelInfo
from trainer.storage.files import cause_of, storage

# As `retrain.py` names its scores; `--output_layer` of the usual call of `label_image`.
_USUAL_OUTPUT = "final_result"
# What messages about backbones say, in the words of `label_image`.
_WORDS = (
    ("--input_tensor", "--input_layer"),
    ("--output_tensor", "--output_layer"),
    ("backbone: ", "--graph: "),
    ("that holds the embeddings", "that holds the scores"),
    ("an embedding is floats", "scores are floats"),
    ("and a backbone has one", "and a classifier has one"),
    ("a backbone may not", "a classifier may not"),
    ("A backbone may not", "A classifier may not"),
    ("between pixels and embeddings", "between pixels and scores"),
    ("the embeddings of", "the scores of"),
    ("an embedding of its own", "scores of its own"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphFlags:
    """What the user says of a graph; None for what the graph says.

    Attributes:
      graph: path of the frozen graph.
      labels: path of the file of labels, one a line.
      input_layer: name of the operation that takes the pixels; None for the only placeholder.
      output_layer: name of the operation that gives the scores; None for "final_result".
      input_height: of the pixels.
      input_width: of the pixels.
      input_mean: is subtracted from pixels from 0 to 255.
      input_std: the difference is divided by it.
    """

    graph: str
    labels: str | None
    input_layer: str | None = None
    output_layer: str | None = None
    input_height: int | None = None
    input_width: int | None = None
    input_mean: float = 0.0
    input_std: float = 255.0


class GraphClassifier:
    """A loaded graph. It has the interface of `trainer.export.classifier.Classifier`.

    Attributes:
      info: its labels; the size of photos in it is the larger one of height and width. Its threshold is 0.
    """

    def __init__(self, flags: GraphFlags):
        """Loads the graph, which takes seconds.

        Raises:
          InputError: a file cannot be read, the graph has no such layers, or the labels are not those of its scores.
        """
        where = repr(flags.graph)
        data = _read(flags.graph, "graph")
        import_tensorflow()
        try:
            with without_tensorflow_noise():
                graph = parse_graph(data, where)
            input_tensor, _ = find_input(graph, flags.input_layer, where=where)
            height, width = _sides(flags, input_sides(graph, input_tensor), where)
            if max(height, width) > MAX_IMAGE_SIZE:
                raise InputError(f"--input_height: must be at most {MAX_IMAGE_SIZE}. Received: {max(height, width)}.")
            output = flags.output_layer
            if output is None and any(node.name == _USUAL_OUTPUT for node in graph.node):
                output = _USUAL_OUTPUT
            with without_tensorflow_noise():
                self._model = graph_model(
                    graph, input_tensor=input_tensor, output_tensor=output, size=height, width=width, where=where
                )
        except InputError as error:
            raise InputError(_in_words_of_label_image(str(error))) from error
        self._shape = height, width
        digest = hashlib.sha256(data).hexdigest()
        self._scale = flags.input_mean, flags.input_std
        count = int(self._model.output_shape[-1])
        labels = class_names(count, [] if flags.labels is None else [(flags.labels, _read(flags.labels, "labels"))])
        self.info = ModelInfo(
            labels=tuple(labels),
            backbone=BackboneIdentity(
                architecture=FROZEN_GRAPH,
                weights=flags.graph,
                seed=None,
                weights_digest=f"sha256:{digest}",
                embedding_size=count,
                image_definition=ImageDefinition(
                    size=max(height, width), scaling=f"{flags.input_mean:f},{flags.input_std:f}"
                ).name,
                input_tensor=input_tensor,
                output_tensor=output,
            ),
            head_digest=f"sha256:{digest}",
        )

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Predicts for photos that `trainer.export.classifier.normalize_photo` made, in their order."""
        predictions = []
        for start in range(0, len(images), BATCH_SIZE):
            pixels = np.stack([self._pixels(image) for image in images[start : start + BATCH_SIZE]])
            mean, std = self._scale
            scores = np.asarray(self._model((pixels - np.float32(mean)) / np.float32(std), training=False))
            for row in scores:
                best = int(row.argmax())
                predictions.append(Prediction(label=self.info.labels[best], label_id=best, scores=row))
        return predictions

    def _pixels(self, image: bytes) -> np.ndarray:
        """float32 [height, width, 3], from 0 to 255."""
        height, width = self._shape
        with Image.open(io.BytesIO(image), formats=("PNG",)) as opened:
            picture = opened.convert("RGB")
        if picture.size != (width, height):  # A square, of which one side is already right.
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture, np.float32)


def _sides(flags: GraphFlags, says: tuple[int | None, int | None], where: str) -> tuple[int, int]:
    """Height and width of the pixels, from the flags and from what the graph says."""
    given = flags.input_height, flags.input_width
    for name, side, needed in zip(("input_height", "input_width"), given, says, strict=True):
        if None not in (side, needed) and side != needed:
            raise InputError(f"--{name}: {where} takes images of {says[0]} x {says[1]} pixels. Received: {side}.")
    height, width = (side or needed for side, needed in zip(given, says, strict=True))
    height, width = height or width, width or height
    if height is None or width is None:
        raise InputError(f"--input_height: {where} does not say which size of images it takes. Pass it.")
    return height, width


def _read(path: str, flag: str) -> bytes:
    try:
        return storage().read(path)
    except OSError as error:
        raise InputError(f"--{flag}: {path} cannot be read ({cause_of(error)}).") from error


def _in_words_of_label_image(message: str) -> str:
    for ours, theirs in _WORDS:
        message = message.replace(ours, theirs)
    return message
