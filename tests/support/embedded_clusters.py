"""Small data sets that can be learned, and options that learn them in no time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings, MemoryViews
from trainer.options import TrainingOptions


def dataset(embeddings: np.ndarray, label_ids: list[list[int]], num_labels: int) -> EmbeddingDataset:
    """Examples named by their numbers."""
    return EmbeddingDataset(
        uris=np.array([f"image {i}" for i in range(len(label_ids))], dtype=object),
        embeddings=MemoryEmbeddings(embeddings.astype(np.float32)),
        label_ids=np.concatenate(label_ids).astype(np.int64),
        label_splits=np.cumsum([0, *map(len, label_ids)]),
        labels=tuple(f"label {i}" for i in range(num_labels)),
        num_unlabeled=0,
    )


def clusters(num_examples: int, seed: int, *, noise: float = 0.5) -> EmbeddingDataset:
    """Four clusters in 32 dimensions."""
    centres = np.random.default_rng(99).normal(0, 1, (4, 32))
    rng = np.random.default_rng(seed)
    classes = np.arange(num_examples) % 4
    return dataset(centres[classes] + rng.normal(0, noise, (num_examples, 32)), [[int(c)] for c in classes], 4)


def in_views(data: EmbeddingDataset, *, count: int = 4, noise: float = 0.3) -> EmbeddingDataset:
    """The same examples with several views in memory: view 0 is as before, the others are that and noise."""
    added = np.random.default_rng(5).normal(0, noise, (count, *data.embeddings.shape)).astype(np.float32)
    added[0] = 0
    array = np.concatenate(list(data.embeddings.pieces()))
    return dataclasses.replace(data, embeddings=MemoryViews(array + added))


def small_options(**changes: Any) -> TrainingOptions:
    """Of a head that learns the clusters in a few steps."""
    values: dict[str, Any] = {
        "max_steps": 60,
        "hidden_units": 16,
        "batch_size": 30,
        "learning_rate": 1e-2,
        "eval_every_steps": 20,
        **changes,
    }
    return TrainingOptions(train_data_paths=("t",), eval_data_paths=("e",), output_path="unused", **values)
