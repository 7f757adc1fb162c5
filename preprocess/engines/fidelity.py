"""Measures how similar the embeddings of two engines or precisions are, and how fast an engine is."""

from __future__ import annotations

import time

import numpy as np

from preprocess.engines.base import Engine


def centred_cosines(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The cosine of each embedding to its reference, after subtracting the reference's mean from both.

    The mean is most of the length of every embedding, and does not depend on the image. So a plain cosine is always
    near 1, even if the rest differs.

    Args:
      embeddings: float32 [n, embedding_size].
      reference: the reference embeddings of the same images, in the same order and shape.

    Returns:
      float64 [n].
    """
    mean = reference.mean(axis=0, dtype=np.float64)
    ours, theirs = embeddings - mean, reference - mean
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = np.einsum("ij,ij->i", ours, theirs)
    # Two embeddings that both equal the mean agree.
    return np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0)


def embed_all(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """The embeddings of any number of images, float32 [n, embedding_size]."""
    step = engine.batch_size
    futures = [engine.start(pixels[start : start + step]) for start in range(0, len(pixels), step)]
    return np.concatenate([future.result() for future in futures])


def seconds_for(engine: Engine, pixels: np.ndarray, *, rounds: int = 3) -> float:
    """Seconds that the images take: the best of some rounds, because other programs may disturb a round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        embed_all(engine, pixels)
        times.append(time.perf_counter() - start)
    return min(times)
