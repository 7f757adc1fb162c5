"""Places photos on a map: near each other if their embeddings are similar. By t-SNE, or by principal components."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from configs.activity import doing
from configs.choices import ReducerName
from configs.errors import InputError
from configs.install_hint import install_hint
from insight.layout.components import principal_components
from insight.layout.earlier import aligned, starting_positions
from insight.neighbours.exact import unit_vectors
from insight.neighbours.graph import neighbour_graph

# The dimensions in which neighbours are looked for, as van der Maaten and Hinton (2008) take 30 to 50.
_DIMENSIONS = 50
# About how many neighbours count for each photo. Large maps fall into pieces below about 10.
_PERPLEXITY = 15.0
# Fewer photos than this have no neighbourhoods to show.
_FEWEST = 12
# With more photos than this, the gradient by interpolation takes less time than that by a tree.
_MOST_BY_TREE = 1_500
_MOST_BY_ONE_THREAD = 10_000
_EARLY_STEPS, _LATE_STEPS, _LAST_STEPS, _UPDATE_STEPS = 200, 250, 50, 100
# Most of the time goes into the transforms of the grid on which photos push each other, and the grid grows with the
# map. Until the last steps its cells may be twice as wide, so it has a quarter of the cells. Then the last steps bring
# photos to the neighbours that a fine grid from the start would have brought them to (`benchmarks.photo_map`).
_COARSE_CELL = 2
# Components of vectors of length 1 differ by at most 2. No map by t-SNE is so small.
_WIDEST_BY_COMPONENTS = 4.0
# The standard deviation of the first positions, from which t-SNE unfolds (openTSNE's own rule).
_FIRST_DEVIATION = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where photos are on a map.

    Attributes:
      positions: float32, shape [n, 2]; the units have no meaning, but a map that goes on from another has its units.
      reducer: "tsne" or "pca".
      why: why it is this reducer, if that was not asked for; else empty.
      mean_shift: how far photos of the earlier map moved on average, as a share of its width; None if there is none.
    """

    positions: np.ndarray
    reducer: str
    why: str = ""
    mean_shift: float | None = None


def has_tsne() -> bool:
    """Whether openTSNE is installed (the optional extra `insight`)."""
    return importlib.util.find_spec("openTSNE") is not None


def place(
    embeddings: np.ndarray, *, reducer: ReducerName = "auto", seed: int = 0, earlier: np.ndarray | None = None
) -> Layout:
    """Places photos on a map. The same arguments give the same positions, also with another number of threads.

    t-SNE: van der Maaten and Hinton, 2008, with the gradient of Linderman et al., 2019 (FIt-SNE), as openTSNE has it.

    Args:
      embeddings: float32, shape [n, size], n at least 1.
      reducer: "tsne", "pca", or "auto" for t-SNE where it is installed and there are enough photos.
      seed: of the random numbers of t-SNE.
      earlier: float32, shape [n, 2]: the positions on an earlier map; NaN for photos that it does not have. None if
        there is no earlier map.

    Raises:
      InputError: t-SNE is asked for and not installed.
    """
    if reducer == "tsne" and not has_tsne():
        raise InputError(f"--reducer: tsne needs openTSNE, which is not installed. {install_hint('insight')}")
    why = ""
    if reducer == "auto" and not has_tsne():
        why = "t-SNE, which shows neighbourhoods much better, is not installed. " + install_hint("insight")
    elif reducer != "pca" and len(embeddings) < _FEWEST:
        why = f"fewer than {_FEWEST} photos have no neighbourhoods that t-SNE could show"
    if earlier is not None and np.isnan(earlier).any(axis=1).all():
        earlier = None
    with doing("finding the main directions of the embeddings"):
        reduced = principal_components(unit_vectors(embeddings), max(2, min(_DIMENSIONS, *embeddings.shape)))
    if reducer == "pca" or why:
        positions = reduced[:, :2]
        if earlier is None:
            return Layout(positions=positions, reducer="pca", why=why)
        positions = aligned(positions, earlier, with_scale=True)
        return Layout(positions=positions, reducer="pca", why=why, mean_shift=_mean_shift(positions, earlier))
    if earlier is not None and (width := _width(earlier)) < _WIDEST_BY_COMPONENTS:
        # A map by components is much smaller; t-SNE would have to unfold it first.
        earlier = earlier * (len(earlier) ** 0.5 / width)
    positions = _by_tsne(reduced, seed, earlier)
    if earlier is None:
        return Layout(positions=positions, reducer="tsne")
    positions = aligned(positions, earlier)
    return Layout(positions=positions, reducer="tsne", mean_shift=_mean_shift(positions, earlier))


def _mean_shift(positions: np.ndarray, earlier: np.ndarray) -> float:
    known = ~np.isnan(earlier).any(axis=1)
    return float(np.linalg.norm(positions[known] - earlier[known], axis=1).mean()) / _width(earlier)


def _width(earlier: np.ndarray) -> float:
    return float(np.ptp(earlier[~np.isnan(earlier).any(axis=1)], axis=0).max()) or 1.0


def _by_tsne(reduced: np.ndarray, seed: int, earlier: np.ndarray | None) -> np.ndarray:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    from preprocess.machine.cores import available_cores

    perplexity = min(_PERPLEXITY, (len(reduced) - 1) / 3)
    count = min(int(3 * perplexity), len(reduced) - 1)
    rows, similarities = neighbour_graph(unit_vectors(reduced), count)
    distances = np.sqrt(np.maximum(2 - 2 * similarities, 0))
    # Threads wait for each other at each step, which takes longer than the step of a few photos.
    threads = available_cores() if len(reduced) > _MOST_BY_ONE_THREAD else 1
    with doing("arranging the photos", total=_UPDATE_STEPS if earlier is not None else None, unit="step") as progress:
        affinities = PerplexityBasedNN(
            knn_index=PrecomputedNeighbors(rows, distances), perplexity=perplexity, n_jobs=threads
        )
        if earlier is None:
            first = reduced[:, :2].astype(np.float64)
            first *= _FIRST_DEVIATION / max(float(first[:, 0].std()), 1e-30)
        else:
            first = starting_positions(earlier, rows).astype(np.float64)
        # Photos at exactly one place would push each other in no direction.
        spread = _FIRST_DEVIATION * 1e-2 if earlier is None else 1e-3
        first += np.random.default_rng(seed).normal(0, spread, first.shape)
        options: dict[str, Any] = {"n_jobs": threads, "random_state": seed}
        method = "fft" if len(reduced) > _MOST_BY_TREE else "bh"
        embedding = TSNEEmbedding(first, affinities, negative_gradient_method=method, **options)
        if earlier is None:
            progress.total = _EARLY_STEPS + _LATE_STEPS + _LAST_STEPS
            embedding.optimize(_EARLY_STEPS, exaggeration=12, momentum=0.5, inplace=True)
            progress.advance(_EARLY_STEPS)
            embedding.optimize(_LATE_STEPS, momentum=0.8, ints_in_interval=_COARSE_CELL, inplace=True)
            progress.advance(_LATE_STEPS)
            embedding.optimize(_LAST_STEPS, momentum=0.8, inplace=True)
        else:
            embedding.optimize(_UPDATE_STEPS, momentum=0.5, inplace=True)
    return np.asarray(embedding, np.float32)
