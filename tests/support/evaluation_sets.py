"""Data sets and logits to evaluate, made up."""

from __future__ import annotations

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.data.embeddings import MemoryEmbeddings
from trainer.data.label_mode import LabelMode

LABELS = ("red", "green", "blue", "grey")


def dataset(
    *label_ids: list[int], label_mode: LabelMode = "single", labels: tuple[str, ...] = LABELS
) -> EmbeddingDataset:
    return EmbeddingDataset(
        uris=np.array([f"{i}.jpg" for i in range(len(label_ids))], dtype=object),
        embeddings=MemoryEmbeddings(np.zeros((len(label_ids), 3), np.float32)),
        label_ids=np.concatenate([np.array(ids, np.int64) for ids in label_ids]),
        label_splits=np.cumsum([0, *map(len, label_ids)]),
        labels=labels,
        num_unlabeled=0,
        label_mode=label_mode,
    )


def logits(*predicted: int) -> np.ndarray:
    """Of a model that gives the predicted label a score of 0.7 and each other one 0.1."""
    return np.log(np.full((len(predicted), 4), 0.1) + 0.6 * np.eye(4)[list(predicted)]).astype(np.float32)


def noisy(
    examples: int, *, seed: int = 0, skill: float = 2.0, label_mode: LabelMode = "single"
) -> tuple[np.ndarray, EmbeddingDataset]:
    """Logits, float32 [examples, 4], of a model whose scores can be taken at their word, and what it was asked."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(0, skill, (examples, 4))).astype(np.float32)
    if label_mode == "multi":
        member = rng.random(values.shape) < 1 / (1 + np.exp(-values))
        member[~member.any(axis=1), 0] = True
        return values, dataset(*([*np.flatnonzero(row)] for row in member), label_mode="multi")
    scores = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    ids = (scores.cumsum(axis=1) < rng.random((examples, 1))).sum(axis=1)
    return values, dataset(*([int(i)] for i in ids))
