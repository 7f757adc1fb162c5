"""Models as far as `pipelines.predict` reads them: the description and the head, for the stand-in engine."""

import dataclasses
import json

import numpy as np

from preprocess.answers.head import Dense, Head
from preprocess.images.decode import IMAGE_DEFINITION
from tests.support.stand_ins import IDENTITY
from trainer.export.head_arrays import HEAD_PATH
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo

# A network that `--backbone` knows; the stand-in engine runs it.
NETWORK = dataclasses.replace(IDENTITY, architecture="inception_v3", image_definition=IMAGE_DEFINITION)
LABELS = ("a", "b", "c")


def write_model(folder, *, seed=0, labels=LABELS, identity=NETWORK, label_mode="single", threshold=0.6, **changes):
    """Writes a model, and returns its path."""
    random = np.random.RandomState(seed)
    layers = (
        Dense(random.normal(0, 1, (3, 4)).astype(np.float32), np.ones(4, np.float32), relu=True),
        Dense(random.normal(0, 3, (4, len(labels))).astype(np.float32), np.zeros(len(labels), np.float32)),
    )
    head = Head(
        layers=layers,
        scores="sigmoid" if label_mode == "multi" else "softmax",
        temperature=1.5,
        threshold=threshold,
        mean=np.array([128, 114000, 38000], np.float32),
        deviation=np.array([10, 12000, 6000], np.float32),
    )
    info = ModelInfo(
        labels=labels,
        backbone=identity,
        head_digest="sha256:0",
        label_mode=label_mode,
        temperature=1.5,
        threshold=threshold,
        **changes,
    )
    (folder / "assets.extra").mkdir(parents=True)
    (folder / MODEL_INFO_PATH).write_text(json.dumps(info.to_json()))
    (folder / HEAD_PATH).write_bytes(head.to_bytes())
    return str(folder)
