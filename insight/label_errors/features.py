"""Embeddings as the features that labels are judged by: standardized, turned to their principal axes, and shorter."""

from __future__ import annotations

import numpy as np

from insight.data.principal_axes import principal_axes

# Up to so many photos all axes are kept, which changes no distance. Of more, the first axes keep nearly all there is.
EXACT_ROWS = 5000
MOST_AXES = 512
# The axes of more photos are computed from a sample.
_SAMPLE = 20_000
_BLOCK = 16_384


def principal_features(embeddings: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Standardized embeddings along their principal axes.

    A regression with a penalty on its squared weights, and cosine similarities, are the same as of the standardized
    embeddings themselves. They cost less, because n photos have at most n axes.

    Args:
      embeddings: float32, shape [n, size], of at least 2 photos.
      seed: of the sample of which the axes are computed, for more than 20,000 photos.

    Returns:
      Shape [n, axes]: float64 of up to 5,000 photos, with all axes; else float32, with at most 512 axes.
    """
    sample = embeddings
    if len(embeddings) > _SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(embeddings), _SAMPLE, replace=False)
        sample = embeddings[np.sort(chosen)]
    mean = sample.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(sample - mean).mean(axis=0))
    # A feature that is the same in all photos says nothing; it must not be divided by nearly zero.
    scale = np.where(deviation > 1e-6 * max(float(deviation.max()), 1e-30), deviation, np.inf)
    standardized = (sample - mean) / scale
    exact = len(embeddings) <= EXACT_ROWS
    axes = principal_axes(standardized, count=None if exact else MOST_AXES)
    if exact:
        return standardized @ axes
    turned = np.empty((len(embeddings), axes.shape[1]), np.float32)
    turning = (axes / scale[:, np.newaxis]).astype(np.float32)
    shift = (mean @ (axes / scale[:, np.newaxis])).astype(np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        turned[start : start + _BLOCK] = embeddings[start : start + _BLOCK] @ turning - shift
    return turned
