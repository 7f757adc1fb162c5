from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.images.decode import IMAGE_DEFINITION, IMAGE_SIZE
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import encode_example
from preprocess.records.record_set import (
    MANIFEST_NAME,
    Compression,
    Manifest,
    Shard,
    shard_name,
    sidecar_path,
)

tf = import_tensorflow()

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def mean_colour_identity() -> BackboneIdentity:
    """A stand-in network that is done in no time: the embedding is the mean colour of the image."""
    return BackboneIdentity(
        architecture="inception_v3",
        weights="random",
        seed=0,
        weights_digest="sha256:" + "0" * 64,
        embedding_size=3,
        image_definition=IMAGE_DEFINITION,
    )


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
def write_set(mean_colour_identity) -> Callable[..., str]:
    """Writes a whole record set, the way the pipeline leaves it."""

    def write(
        prefix: str,
        embeddings: np.ndarray,
        label_ids: Sequence[Sequence[int]],
        *,
        labels: Sequence[str] = COLOURS,
        identity: BackboneIdentity = mean_colour_identity,
        num_shards: int = 2,
        compression: Compression = "none",
        contents: Sequence[object] | None = None,
        uris: Sequence[str] | None = None,
    ) -> str:
        """`contents` stand for the image files: equal ones have equal digests, and None has no digest."""
        contents = [(prefix, row) for row in range(len(embeddings))] if contents is None else contents
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
        shards = []
        for index, rows in enumerate(np.array_split(np.arange(len(embeddings)), num_shards)):
            name = shard_name(os.path.basename(prefix), index, num_shards, compression)
            path = os.path.join(os.path.dirname(prefix), name)
            with tf.io.TFRecordWriter(path, "GZIP" if compression == "gzip" else "") as writer:
                for row in rows:
                    content = contents[row]
                    record = encode_example(
                        image_uri=f"{os.path.basename(prefix)}/{row}.jpg" if uris is None else uris[row],
                        embedding=embeddings[row],
                        label_ids=label_ids[row],
                        image_sha256=b"" if content is None else hashlib.sha256(repr(content).encode()).digest(),
                    )
                    writer.write(record)
            with open(path, "rb") as stream:
                raw = stream.read()
            shards.append(
                Shard(name=name, records=len(rows), num_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
            )
        manifest = Manifest(
            backbone=identity,
            labels=tuple(labels),
            compression=compression,
            records=len(embeddings),
            shards=tuple(shards),
        )
        path = sidecar_path(prefix, MANIFEST_NAME)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(manifest.to_bytes())
        return prefix

    return write


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
