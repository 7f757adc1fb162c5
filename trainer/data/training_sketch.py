"""A sketch of a training set, small enough to travel with a model.

With it, new photos can be compared with those that the model learned from, where these are not at hand.

It holds the embeddings of some photos of the set, projected to fewer numbers and rounded to bytes, and a few numbers of
some photos (`photo_statistics`). The projection is random and the same for all sets (Johnson and Lindenstrauss, 1984):
it keeps distances, and it has not seen the photos, so that those of the sketch and new ones are treated alike. A
projection that was fitted to the training set, such as its principal components, would not be fair to new photos. New
photos are rounded as those of the sketch are. Of files with the same content one is kept, in the sketch and of new
photos, because copies look like a group.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np

from configs.errors import InputError
from trainer.data.dataset import EmbeddingDataset
from trainer.data.distinct_photos import first_of_each
from trainer.data.photo_statistics import PHOTO_STATISTICS, statistics_of_photos
from trainer.data.photos import PhotoFinder

_FORMAT = 1
# Together less than 1 MB: as many photos as this, then as many numbers of each as there is room for.
_MAX_PHOTOS = 2000
_MAX_NUMBERS = 900_000
_PROJECTION_SEED = 20_150_911
_LEVELS = 127
# After so many seconds, no further photo is read for its statistics.
_PHOTOS_SEC = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSketch:
    """What is kept of a training set.

    Attributes:
      embedding_size: of the network.
      num_photos: of the whole set.
      vectors: float32, shape [m, r]: the projected embeddings of m photos, rounded to multiples of `steps`.
      steps: float32, shape [r]: positive.
      label_ids: int64, shape [m]: the first label of each of them.
      statistics: float32, shape [p, 6]: of p photos of the set, in the order of `PHOTO_STATISTICS`; p is 0 if the
        photos could not be read.
    """

    embedding_size: int
    num_photos: int
    vectors: np.ndarray
    steps: np.ndarray
    label_ids: np.ndarray
    statistics: np.ndarray

    @classmethod
    def of_vectors(
        cls, vectors: np.ndarray, label_ids: np.ndarray, statistics: np.ndarray, *, embedding_size: int, num_photos: int
    ) -> TrainingSketch:
        """Rounds projected embeddings, float32 [m, r]; the other arguments are as the attributes."""
        steps = _steps(np.abs(vectors).max(axis=0, initial=0.0))
        return cls(
            embedding_size=embedding_size,
            num_photos=num_photos,
            vectors=_rounded(vectors, steps),
            steps=steps,
            label_ids=label_ids,
            statistics=statistics,
        )

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [n, embedding_size], as the sketch has them: float32 [n, r]."""
        return _rounded(_projected(embeddings, self.vectors.shape[1]), self.steps)

    def to_bytes(self) -> bytes:
        """The content of the file, less than 1 MB."""
        rounded = np.rint(self.vectors / self.steps).astype(np.int8)
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            format=np.int64(_FORMAT),
            embedding_size=np.int64(self.embedding_size),
            num_photos=np.int64(self.num_photos),
            vectors=rounded,
            scales=self.steps * np.float32(_LEVELS),
            label_ids=self.label_ids.astype(np.int32),
            statistics=self.statistics.astype(np.float16),
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> TrainingSketch:
        """Reads what `to_bytes` wrote. No code in the file is run.

        Raises:
          InputError: the bytes are no sketch of this version; `where` names them in the message.
        """
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise InputError(f"{where}: has another format than this version reads. Train again.")
                steps = _steps(arrays["scales"])
                sketch = cls(
                    embedding_size=int(arrays["embedding_size"]),
                    num_photos=int(arrays["num_photos"]),
                    vectors=arrays["vectors"].astype(np.float32) * steps,
                    steps=steps,
                    label_ids=arrays["label_ids"].astype(np.int64),
                    statistics=arrays["statistics"].astype(np.float32),
                )
            if sketch.vectors.ndim != 2 or sketch.label_ids.shape != sketch.vectors.shape[:1]:
                raise ValueError
            if sketch.statistics.shape[1:] != (len(PHOTO_STATISTICS),):
                raise ValueError
            return sketch
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{where}: is no sketch of a training set, or is damaged. Copy the model whole."
            ) from error


def _steps(scales: np.ndarray) -> np.ndarray:
    """The steps of the rounding, from the largest size of each number: float32 [r], positive."""
    return np.maximum(scales.astype(np.float32) / np.float32(_LEVELS), np.finfo(np.float32).tiny)


def _rounded(vectors: np.ndarray, steps: np.ndarray) -> np.ndarray:
    # A number that was 0 in all photos of the sketch has no step to speak of.
    known = steps > np.finfo(np.float32).tiny
    return np.where(known, np.rint(vectors / np.where(known, steps, 1)) * steps, vectors).astype(np.float32)


def _projected(embeddings: np.ndarray, size: int) -> np.ndarray:
    embedding_size = embeddings.shape[1]
    if size == embedding_size:
        return embeddings.astype(np.float32)
    # `RandomState` gives the same numbers in every version of NumPy; other generators need not.
    matrix = np.random.RandomState(_PROJECTION_SEED).standard_normal((embedding_size, size)) / np.sqrt(size)
    return (embeddings @ matrix.astype(np.float32)).astype(np.float32)


def sketch_training_set(
    dataset: EmbeddingDataset, finder: PhotoFinder, *, image_size: int, max_statistics: int
) -> TrainingSketch:
    """Makes the sketch of a training set.

    Args:
      dataset: the set. Its photos are chosen at random, always the same ones.
      finder: finds the photos of the set.
      image_size: the side of the square that the network sees, in pixels.
      max_statistics: how many photos are read for their statistics, at most; for 20 seconds, at most.
    """
    count, embedding_size = dataset.embeddings.shape
    order = np.random.RandomState(_PROJECTION_SEED).permutation(count)
    distinct = first_of_each(map(dataset.image_digest_of, order.tolist()), most=_MAX_PHOTOS)
    chosen = np.sort(order[distinct])
    size = max(1, min(embedding_size, _MAX_NUMBERS // len(chosen)))
    vectors = np.empty((len(chosen), size), np.float32)
    start = filled = 0
    for piece in dataset.embeddings.pieces():
        inside = chosen[filled:][chosen[filled:] < start + len(piece)] - start
        if len(inside):
            vectors[filled : filled + len(inside)] = _projected(piece[inside], size)
        filled += len(inside)
        start += len(piece)
    named = [(finder, dataset.uris[row], dataset.image_digest_of(row)) for row in order[:max_statistics].tolist()]
    _, statistics = statistics_of_photos(named, size=image_size, limit_sec=_PHOTOS_SEC)
    return TrainingSketch.of_vectors(
        vectors, dataset.first_label_ids[chosen], statistics, embedding_size=embedding_size, num_photos=count
    )
