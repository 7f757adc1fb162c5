"""Made-up embeddings like those of real networks: groups within groups, few directions that matter, and noise.

An embedding is relu(latent @ directions + noise). The latent numbers of a photo are those of its class, of its group
within the class, and its own; later ones have less weight, as the variances of real features fall. Isotropic noise
alone would have no near neighbours, and would make every index look bad.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_LATENT = 96
_GROUPS = 40


def clustered(
    number: int, *, size: int = 1280, classes: int = 100, seed: int = 0, piece: int = 4096
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Makes embeddings, some thousand at a time.

    Args:
      number: how many in all, n.
      size: of an embedding.
      classes: how many classes there are.
      seed: of the random numbers.
      piece: how many to give at once.

    Yields:
      Embeddings, float32 [m, size], and the class of each, int64 [m].
    """
    shared = np.random.default_rng(99)
    weights = (1 / np.sqrt(1 + np.arange(_LATENT) / 8)).astype(np.float32)
    directions = shared.standard_normal((_LATENT, size), np.float32) * weights[:, np.newaxis] / np.sqrt(_LATENT)
    centres = shared.standard_normal((classes, _LATENT), np.float32) * 1.5
    groups = centres[:, np.newaxis] + shared.standard_normal((classes, _GROUPS, _LATENT), np.float32) * 0.6
    random = np.random.default_rng(seed)
    for start in range(0, number, piece):
        count = min(piece, number - start)
        of_class = random.integers(0, classes, count)
        latent = groups[of_class, random.integers(0, _GROUPS, count)]
        latent = latent + random.standard_normal((count, _LATENT), np.float32) * 0.6
        noise = random.standard_normal((count, size), np.float32) * 0.15
        yield np.maximum(latent @ directions + noise, 0), of_class
