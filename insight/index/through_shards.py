"""Searches record sets without an index: exactly, in one pass over the shards, with little memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from configs.errors import InputError
from insight.data.record_pieces import read_pieces
from insight.index.near_photo import NearPhoto, digest_text, label_names
from insight.neighbours.exact import unit_vectors
from insight.neighbours.streamed import BestSoFar
from trainer.data.record_sets import RecordSet


class ThroughShards:
    """Searches sets by reading all of their shards."""

    def __init__(self, sets: Sequence[RecordSet]):
        """Reads nothing yet."""
        self._sets = sets

    def nearest(self, queries: np.ndarray, count: int) -> list[list[NearPhoto]]:
        """The most similar photos of each query, the most similar first.

        Args:
          queries: float32, shape [n, embedding_size].
          count: how many for each query.

        Raises:
          InputError: a shard cannot be read.
        """
        best = BestSoFar(unit_vectors(queries), count)
        kept: dict[int, NearPhoto] = {}
        first_row = 0
        for piece in read_pieces(self._sets, what="searching the records"):
            best.offer(unit_vectors(piece.embeddings), first_row=first_row)
            splits = np.concatenate([[0], np.cumsum(piece.label_counts)])
            wanted = np.unique(best.rows)
            for row in wanted[(wanted >= first_row) & (wanted < first_row + len(piece))].tolist():
                at = row - first_row
                kept[row] = NearPhoto(
                    similarity=0.0,
                    uri=piece.uris[at],
                    labels=label_names(
                        piece.label_ids[splits[at] : splits[at + 1]].tolist(), self._sets[0].manifest.labels
                    ),
                    set_number=piece.set_number,
                    digest=digest_text(piece.image_digests[at].tobytes()),
                    row=row,
                )
            kept = {row: kept[row] for row in wanted.tolist() if row in kept}
            first_row += len(piece)
        return [
            [_with(kept[row], similarity) for row, similarity in zip(rows, similarities, strict=True) if row >= 0]
            for rows, similarities in zip(best.rows.tolist(), best.similarities.tolist(), strict=True)
        ]

    def embedding_of(self, uri: str) -> np.ndarray:
        """The embedding of the record of a URI: float32, shape [embedding_size].

        Raises:
          InputError: no record has this URI, or a shard cannot be read.
        """
        meant = None
        for piece in read_pieces(self._sets, what="looking for the photo among the records"):
            uris = list(piece.uris)
            if uri in uris:
                return np.array(piece.embeddings[uris.index(uri)])
            if meant is None:
                meant = next((one for one in uris if one.endswith(end_of(uri))), None)
        raise no_such_photo(uri, meant)


def end_of(uri: str) -> str:
    """What the URI of a record ends with if it is meant by one that is seen from another folder."""
    return "/" + re.sub(r"^(?:\.{0,2}/)+", "", uri)


def no_such_photo(uri: str, meant: str | None) -> InputError:
    """The error that says that no record has a URI.

    Args:
      uri: that was given.
      meant: the URI of a record that ends with it; None if there is none.
    """
    hint = "Give it as the list has it" if meant is None else f"Do you mean {meant!r}, as the list has it? Give that"
    return InputError(f"--image_uri: no record of --data_paths has the URI {uri!r}. {hint}, or pass the photo itself.")


def _with(photo: NearPhoto, similarity: float) -> NearPhoto:
    return NearPhoto(**{**vars(photo), "similarity": min(similarity, 1.0)})
