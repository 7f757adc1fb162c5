from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from preprocess.images.decode import IMAGE_SIZE
from preprocess.records.backbone_identity import BackboneIdentity
from tests.support.written_sets import MEAN_COLOUR, write_record_set


@pytest.fixture(scope="session")
def mean_colour_identity() -> BackboneIdentity:
    """A stand-in network that is done in no time: the embedding is the mean colour of the image."""
    return MEAN_COLOUR


@pytest.fixture
def mean_colour_backbone(monkeypatch, mean_colour_identity):
    import keras

    import trainer.export.saved_model

    model = keras.Sequential([keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), keras.layers.GlobalAveragePooling2D()])
    monkeypatch.setattr(trainer.export.saved_model, "load_keras_backbone", lambda spec: (model, mean_colour_identity))
    return model


@pytest.fixture
def without_network(monkeypatch):
    """For tests of anything but the exported model: it takes embeddings alone, which saves most of its export."""
    import trainer.export.saved_model

    monkeypatch.setattr(trainer.export.saved_model, "load_backbone_of_records", lambda identity, weights: None)


@pytest.fixture(scope="session")
def load_once():
    """Loads each folder's model at its first use only. A model that cannot be loaded is not kept."""
    from trainer.export.classifier import load_saved_model

    return functools.cache(load_saved_model)


@pytest.fixture
def models_loaded_once(monkeypatch, load_once):
    """For tests that look at answers of one model again and again: loading takes more than a second."""
    import trainer.export.classifier

    monkeypatch.setattr(trainer.export.classifier, "load_saved_model", load_once)


@pytest.fixture
def write_set() -> Callable[..., str]:
    """See `tests.support.written_sets`."""
    return write_record_set


@pytest.fixture
def colour_sets(tmp_path, write_set) -> tuple[str, str]:
    """Globs of a training and an evaluation set: mean colours of reddish, greenish and bluish images."""
    globs = []
    for name, count, seed in (("train", 90, 0), ("eval", 30, 1)):
        rng = np.random.default_rng(seed)
        classes = np.arange(count) % 3
        embeddings = rng.normal(-0.5, 0.2, (count, 3)).astype(np.float32)
        embeddings[np.arange(count), classes] += 0.9
        prefix = write_set(str(tmp_path / "preproc" / name), embeddings, [[int(c)] for c in classes])
        globs.append(f"{prefix}*")
    return globs[0], globs[1]


@pytest.fixture
def task_arguments(tmp_path, colour_sets) -> list[str]:
    """Arguments of a training run that takes a second."""
    train, evaluation = colour_sets
    return [
        *("--train_data_paths", train, "--eval_data_paths", evaluation),
        *("--output_path", str(tmp_path / "training"), "--max_steps", "60", "--eval_every_steps", "20"),
        *("--hidden_units", "16", "--batch_size", "30", "--learning_rate", "0.03"),
    ]
