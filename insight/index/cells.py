"""Approximate search by faiss: vectors of fewer dimensions, in cells of similar ones, of which a query reads some.

An inverted file (Jégou et al., 2011) of the principal components, 8 bits each. What it finds is only a choice of
candidates: their similarities are computed from the whole vectors afterwards.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs.activity import doing
from insight.neighbours.graph import has_faiss

# With fewer records, comparing all takes less than 50 ms.
FEWEST_RECORDS = 20_000
# The vectors from which components and cells are learned: 320 MiB at 1,280 numbers each.
SAMPLE = 65_536
_DIMENSIONS = 256
_MOST_CELLS = 2_048
_LEAST_IN_CELL = 39  # of the sample, as faiss asks for
_ITERATIONS = 8
# The recall is measured with so many records in the place of queries, each without itself.
TESTED = 200
TESTED_COUNT = 10
_WANTED_RECALL = 0.98
# (cells that a query reads, candidates): tried from left to right until the recall is reached.
_EFFORTS = ((8, 100), (16, 100), (32, 200), (64, 200), (64, 400), (128, 800), (256, 1600))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a query does, and what it reaches.

    Attributes:
      cells: how many cells it reads.
      candidates: of how many vectors it computes the exact similarity.
      recall: the share of the 10 nearest that it finds, measured on records of the sets.
    """

    cells: int
    candidates: int
    recall: float


class Cells:
    """An inverted file of faiss."""

    def __init__(self, index: Any):
        """Takes the index of faiss."""
        self.index = index

    @classmethod
    def learned(cls, sample: np.ndarray) -> Cells:
        """Learns components and cells. Nothing is in it yet.

        Args:
          sample: float32, shape [m, size], from `unit_vectors`.
        """
        import faiss

        size = sample.shape[1]
        dimensions = min(_DIMENSIONS, size)
        number = max(64, min(_MOST_CELLS, len(sample) // _LEAST_IN_CELL))
        quantizer = faiss.IndexFlatL2(dimensions)
        inverted = faiss.IndexIVFScalarQuantizer(quantizer, dimensions, number, faiss.ScalarQuantizer.QT_8bit)
        inverted.cp.niter = _ITERATIONS
        # Of a vector of length 1, the distance tells the same as the cosine, and the mean may be subtracted.
        index = faiss.IndexPreTransform(faiss.PCAMatrix(size, dimensions), inverted)
        with doing("learning the cells of the index"):
            index.train(sample)
        return cls(index)

    @classmethod
    def read(cls, path: str) -> Cells:
        """Reads what `write` wrote. Raises RuntimeError if it cannot be read."""
        import faiss

        return cls(faiss.read_index(path))

    def write(self, path: str) -> None:
        """Writes the index to a local file."""
        import faiss

        faiss.write_index(self.index, path)

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors: float32, shape [m, size], from `unit_vectors`; they get the next numbers."""
        self.index.add(vectors)

    def candidates(self, queries: np.ndarray, effort: Effort) -> np.ndarray:
        """Rows of candidates, int64, shape [n, effort.candidates]; -1 where there are fewer."""
        import faiss

        parameters = faiss.IVFSearchParameters(nprobe=effort.cells)
        _, rows = self.index.search(
            queries, effort.candidates, params=faiss.SearchParametersPreTransform(index_params=parameters)
        )
        return rows


def search_on_one_core() -> None:
    """Searches of the calling thread use one core, for a program that searches in several threads."""
    if has_faiss():
        import faiss

        faiss.omp_set_num_threads(1)


def usable(records: int) -> bool:
    """Whether so many records are worth cells, and faiss is installed."""
    return records >= FEWEST_RECORDS and has_faiss()


def rescored(
    queries: np.ndarray, candidates: np.ndarray, vectors: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of some candidates, by their whole vectors.

    Args:
      queries: float32, shape [n, size].
      candidates: int64, shape [n, m]; -1 for none.
      vectors: float16, shape [records, size]; may be a file.
      count: how many to keep, k.

    Returns:
      Rows, int64, and similarities, float32; both of shape [n, k], -1 and -inf where there are fewer.
    """
    rows = np.full((len(queries), count), -1, np.int64)
    similarities = np.full((len(queries), count), -np.inf, np.float32)
    for number, query in enumerate(queries):
        found = np.sort(candidates[number][candidates[number] >= 0])
        values = vectors[found].astype(np.float32) @ query
        order = np.argsort(-values, kind="stable")[:count]
        rows[number, : len(order)], similarities[number, : len(order)] = found[order], values[order]
    return rows, similarities


def measured(cells: Cells, vectors: np.ndarray, truth: np.ndarray, tested: np.ndarray) -> Effort:
    """The smallest effort that finds 98 % of the nearest records; the largest if none does.

    Args:
      cells: with all vectors.
      vectors: float16, shape [records, size].
      truth: int64, shape [n, 10]: the nearest records of those tested, without themselves.
      tested: int64, shape [n]: rows that take the place of queries.
    """
    queries = vectors[tested].astype(np.float32)
    effort = Effort(cells=0, candidates=0, recall=0.0)
    for read, candidates in _EFFORTS:
        effort = Effort(cells=read, candidates=candidates, recall=0.0)
        rows, _ = rescored(queries, cells.candidates(queries, effort), vectors, TESTED_COUNT + 1)
        hits = [
            len(set(near.tolist()) & set(true.tolist())) / len(true) for near, true in zip(rows, truth, strict=True)
        ]
        effort = dataclasses.replace(effort, recall=float(np.mean(hits)))
        if effort.recall >= _WANTED_RECALL:
            break
    return effort
