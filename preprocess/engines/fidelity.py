"""Measures how similar the embeddings of two engines or precisions are, and how fast an engine is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from preprocess.engines.base import Engine

# Of a comparison on a CPU: the images that warm the engines up, and the images in a batch.
_WARM_UP, _STEP = 6, 3
# How often both engines embed the timed images, at most.
_TURNS = 4


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


def embed_all(engine: Engine, pixels: np.ndarray, *, step: int | None = None) -> np.ndarray:
    """The embeddings of any number of images, float32 [n, embedding_size].

    Args:
      engine: the engine.
      pixels: uint8 [n, size, size, 3].
      step: the number of images in a batch; None for the engine's own. No embedding depends on it.
    """
    step = step or engine.batch_size
    futures = [engine.start(pixels[start : start + step]) for start in range(0, len(pixels), step)]
    return np.concatenate([future.result() for future in futures])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An engine compared with the reference, on this machine.

    Attributes:
      cosines: the centred cosine of each image, float64 [n].
      speedup: the speed of the engine, as a multiple of the speed of the reference.
    """

    cosines: np.ndarray
    speedup: float


def compare(
    candidate: Engine, reference: Engine, pixels: np.ndarray, *, is_clear: Callable[[float], bool] | None = None
) -> Comparison:
    """Compares the embeddings and the speed of two engines.

    Both embed the same images in turns, so another program would have to disturb the same engine in each turn to
    change the result. The first images are not timed: they warm the engines up.

    Args:
      candidate: an engine.
      reference: the engine to compare with.
      pixels: uint8 [n, size, size, 3], at least 2.
      is_clear: whether a speedup is far enough from where it would decide otherwise. Measuring ends when two turns in a
        row are, or after `_TURNS`. None for one turn, for a speedup that decides nothing.
    """
    on_gpu = candidate.info.device == "gpu"
    # A GPU takes all images at once, and as long for some. On a CPU small batches keep all its cores busy.
    first = len(pixels) if on_gpu else min(_WARM_UP, len(pixels) // 2)
    step = None if on_gpu else _STEP
    timed = pixels if on_gpu else pixels[first:]
    found = {engine: [embed_all(engine, pixels[:first], step=step)] for engine in (candidate, reference)}
    turns: list[tuple[float, float]] = []
    while len(turns) < (1 if is_clear is None else _TURNS):
        seconds = []
        for engine in (candidate, reference):
            start = time.perf_counter()
            embeddings = embed_all(engine, timed, step=step)
            seconds.append(time.perf_counter() - start)
            if not turns and not on_gpu:
                found[engine].append(embeddings)
        turns.append((seconds[0], seconds[1]))
        if is_clear is not None and len(turns) > 1 and all(is_clear(theirs / ours) for ours, theirs in turns[-2:]):
            break
    # The best turns, because other programs may disturb one.
    ours, theirs = (min(seconds) for seconds in zip(*turns, strict=True))
    cosines = centred_cosines(*(np.concatenate(found[engine]) for engine in (candidate, reference)))
    return Comparison(cosines=cosines, speedup=theirs / ours)
