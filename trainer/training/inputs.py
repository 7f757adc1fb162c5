"""What a training step gets: embeddings that are standardized, and of which dropout leaves out some numbers.

NumPy does both in the memory of the batch, in the thread that works ahead. As layers of the head they would be five
operations of TensorFlow in each step, each of which goes through memory, and dropout would draw its random numbers in
the step. `benchmarks.training` measures it.
"""

from __future__ import annotations

import keras
import numpy as np

# Makes the random numbers of dropout others than those that order the examples and draw their views.
_DROPS = 0x64726F70


class TrainingInputs:
    """Standardizes embeddings, and drops some of their numbers.

    Dropout sets a share of the numbers of a batch to 0, and scales the others so that their expected sum stays the
    same. The random numbers depend on the seed, the step and the worker, and on nothing else. So a run that goes on
    after a kill draws what it would have drawn. They are bytes: the share is a multiple of 1/256.
    """

    def __init__(self, *, mean_and_variance: tuple[np.ndarray, np.ndarray] | None, dropout: float, seed: int):
        """Takes what `build_head` has.

        Args:
          mean_and_variance: from `standardization`; None to leave the embeddings as they are.
          dropout: the share that is dropped, at least 0 and below 1. At least one number of 256 is kept.
          seed: decides which numbers are dropped.
        """
        self._dropped = min(round(256 * dropout), 255)
        self._seed = seed
        scale = np.float32(256 / (256 - self._dropped))
        self._mean: np.ndarray | None = None
        self._scale: np.ndarray | np.float32 | None = scale if self._dropped else None
        if mean_and_variance is not None:
            self._mean, variance = mean_and_variance
            # As `keras.layers.Normalization` computes it, with which the head standardizes after training.
            self._scale = scale / np.maximum(np.sqrt(variance), np.float32(keras.config.epsilon()))

    def prepare(self, embeddings: np.ndarray, *, step: int, worker: int = 0) -> None:
        """Changes embeddings, float32 [n, embedding_size], in place.

        Args:
          embeddings: what this worker gets of the batch of the step.
          step: the number of steps before this one.
          worker: the number of this worker.
        """
        if self._mean is not None:
            np.subtract(embeddings, self._mean, out=embeddings)
        if self._scale is not None:
            np.multiply(embeddings, self._scale, out=embeddings)
        if self._dropped:
            np.multiply(embeddings, self._kept(embeddings.shape, step, worker), out=embeddings)

    def _kept(self, shape: tuple[int, ...], step: int, worker: int) -> np.ndarray:
        """Bytes, 1 for each number that is kept, and 0 for the others."""
        random = np.random.default_rng([_DROPS, self._seed, step, worker]).bit_generator
        size = int(np.prod(shape))
        if self._dropped == 128:  # A half: one bit is enough.
            return np.unpackbits(random.random_raw(-(-size // 64)).view(np.uint8), count=size).reshape(shape)
        return (random.random_raw(-(-size // 8)).view(np.uint8)[:size] >= self._dropped).reshape(shape)
