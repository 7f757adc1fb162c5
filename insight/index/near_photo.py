"""A photo that a search found."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearPhoto:
    """A record that is near a query.

    Attributes:
      similarity: the cosine similarity of the embeddings, 1 for the same photo.
      uri: of the photo, as its list has it.
      labels: the names of its labels.
      set_number: the place of its set among the sets that are searched.
      digest: the first 16 bytes of the SHA-256 of its file, in hexadecimal; None if it is not known.
      row: the number of the record among those that were searched.
    """

    similarity: float
    uri: str
    labels: tuple[str, ...]
    set_number: int
    digest: str | None
    row: int

    def to_json(self, set_prefix: str) -> dict[str, Any]:
        """For programs; `set_prefix` names the set."""
        return {
            "similarity": round(self.similarity, 6),
            "image_uri": self.uri,
            "labels": list(self.labels),
            "set": set_prefix,
            "image_sha256": self.digest,
        }


def label_names(ids: list[int], labels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of label ids, each once."""
    return tuple(labels[label_id] for label_id in dict.fromkeys(ids))


def digest_text(digest: bytes) -> str | None:
    """The beginning of a SHA-256 in hexadecimal; None for zeros, which stand for an unknown one."""
    return digest.hex() if any(digest) else None
