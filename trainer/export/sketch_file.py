"""The sketch of the training set, stored beside the model: `hugs drift` compares new photos with it."""

from __future__ import annotations

import os

from configs.errors import InputError
from trainer.data.training_sketch import TrainingSketch
from trainer.export.model_files import read_model_file
from trainer.export.model_info import ModelInfo

SKETCH_PATH = "assets.extra/training_sketch.npz"


def write_sketch(model_dir: str, sketch: TrainingSketch) -> None:
    """Writes the sketch into the local folder of its model. Raises OSError."""
    path = os.path.join(model_dir, SKETCH_PATH)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(sketch.to_bytes())


def read_sketch(model_dir: str, info: ModelInfo) -> TrainingSketch:
    """Reads the sketch of a model.

    Args:
      model_dir: the folder of the model, local or in a bucket.
      info: of the model.

    Raises:
      InputError: the model was exported by an earlier version, or the file is damaged or not of this model.
    """
    path, data = read_model_file(model_dir, SKETCH_PATH, flag="--model_dir")
    sketch = TrainingSketch.from_bytes(data, where=path)
    if sketch.embedding_size != info.backbone.embedding_size or sketch.label_ids.max(initial=-1) >= len(info.labels):
        raise InputError(f"{path}: is not the sketch of this model. Copy the model whole, or train again.")
    return sketch
