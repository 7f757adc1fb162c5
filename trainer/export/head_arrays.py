"""The head of an exported model as arrays, stored beside the model: `pipelines.predict` answers with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.errors import InputError
from preprocess.answers.head import Dense, Head
from trainer.export.model_files import read_model_file
from trainer.export.model_info import ModelInfo

if TYPE_CHECKING:
    import keras

HEAD_PATH = "assets.extra/head.npz"


def head_arrays(head: keras.Model, info: ModelInfo) -> Head:
    """The arrays of a trained head, with the temperature and the threshold of its model.

    Args:
      head: from `trainer.training.head.build_head`.
      info: of the model.
    """
    import keras

    arrays: dict[str, Any] = {}
    layers = []
    for layer in head.layers:
        if layer.name == "standardize":
            mean, variance = (
                keras.ops.convert_to_numpy(value).reshape(-1).astype(np.float32)
                for value in (layer.mean, layer.variance)
            )
            # As `keras.layers.Normalization` computes it.
            deviation = np.maximum(np.sqrt(variance), np.float32(keras.config.epsilon()))
            arrays = {"mean": mean, "deviation": deviation}
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            layers.append(Dense(kernel, bias, relu=layer.activation is keras.activations.relu))
        else:
            raise AssertionError(f"a head has no layer {layer.name!r}")
    return Head(
        layers=tuple(layers),
        scores="sigmoid" if info.label_mode == "multi" else "softmax",
        temperature=info.temperature,
        threshold=info.threshold,
        **arrays,
    )


def write_head(model_dir: str, head: keras.Model, info: ModelInfo) -> None:
    """Writes the head into the local folder of its model. Raises OSError."""
    path = os.path.join(model_dir, HEAD_PATH)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(head_arrays(head, info).to_bytes())


def read_head(model_dir: str, info: ModelInfo) -> Head:
    """Reads the head of a model, without TensorFlow.

    Args:
      model_dir: the folder of the model, local or in a bucket.
      info: of the model.

    Raises:
      InputError: the model was exported by an earlier version, or the file is damaged or not of this model.
    """
    path, data = read_model_file(model_dir, HEAD_PATH)
    head = Head.from_bytes(data, where=path)
    sizes = [layer.kernel.shape for layer in head.layers]
    if not sizes or (sizes[0][0], sizes[-1][-1]) != (info.backbone.embedding_size, len(info.labels)):
        raise InputError(
            f"{path}: is not the head of this model, whose network makes {info.backbone.embedding_size} numbers for "
            f"{len(info.labels)} labels. Copy the model whole, or train again."
        )
    if (head.temperature, head.threshold) != (info.temperature, info.threshold):
        raise InputError(f"{path}: is not the head of this model: its threshold differs. Copy the model whole.")
    return head
