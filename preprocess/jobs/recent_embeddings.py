"""The embeddings that this process has had lately, so that an image that a list names again is not embedded again.

Lists name images again: a photo in two folders, a picture that stands for missing ones. The memory for this is limited,
so of a long list only images that come again soon are found. `--embedding_cache` finds them at any distance.
"""

from __future__ import annotations

import collections
import threading
import weakref

import numpy as np

from preprocess.engines.base import EmbeddingSource
from preprocess.images.loader import FoundEmbedding

# 8192 embeddings of 2048 floats, which are those of 8 blocks of the default length.
MAX_BYTES = 64 * 1024 * 1024
DIGEST_BYTES = 32
# What holding one takes beside its numbers: digest, hash, objects and their place in the table. Measured.
BYTES_AROUND_ONE = 360


class RecentEmbeddings:
    """Embeddings by the SHA-256 of the image file's bytes. Every method may be called from any thread.

    If there is no room, the embedding that was not asked for the longest time goes. An embedding does not depend on its
    batch, so what is found has the bytes of what would be computed.

    Args:
      max_bytes: the largest size of what is held: of each embedding its numbers, and BYTES_AROUND_ONE.
    """

    def __init__(self, max_bytes: int = MAX_BYTES):
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._embeddings: collections.OrderedDict[bytes, FoundEmbedding] = collections.OrderedDict()
        self._lock = threading.Lock()

    def find(self, digest: bytes) -> FoundEmbedding | None:
        """Looks an embedding up.

        Args:
          digest: SHA-256 of the image file, 32 bytes.

        Returns:
          The embedding, float32 [embedding_size], of several views [views, embedding_size], which must not be changed,
          with the hash of the image if that is known; None if it is not held.
        """
        with self._lock:
            found = self._embeddings.get(digest)
            if found is not None:
                self._embeddings.move_to_end(digest)
            return found

    def keep(self, digest: bytes, embedding: np.ndarray, image_hash: bytes = b"") -> None:
        """Holds a copy of an embedding.

        Args:
          digest: SHA-256 of the image file, 32 bytes. Records of earlier versions have none: they are not held.
          embedding: float32 [embedding_size], of several views [views, embedding_size].
          image_hash: the perceptual hash of the image; empty if it is not known.
        """
        num_bytes = embedding.nbytes + BYTES_AROUND_ONE
        if len(digest) != DIGEST_BYTES or num_bytes > self._max_bytes:
            return
        with self._lock:
            if digest in self._embeddings:
                self._embeddings.move_to_end(digest)
                return
            # A copy, because a row of a batch would hold the whole batch.
            self._embeddings[digest] = FoundEmbedding(embedding.copy(), image_hash)
            self._held_bytes += num_bytes
            while self._held_bytes > self._max_bytes:
                oldest = self._embeddings.popitem(last=False)[1]
                self._held_bytes -= oldest.embedding.nbytes + BYTES_AROUND_ONE


_of_runs: weakref.WeakValueDictionary[tuple[str, int], RecentEmbeddings] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def recent_embeddings_of(run_id: str, engine: EmbeddingSource) -> RecentEmbeddings:
    """The embeddings of a run of a job, which all threads of this process share; they go with their last user.

    The caller holds the engine as long as it holds them.
    """
    with _lock:
        key = run_id, id(engine)
        recent = _of_runs.get(key)
        if recent is None:
            recent = _of_runs[key] = RecentEmbeddings()
        return recent
