"""The records of finished sets some megabytes at a time, for programs that do not hold all embeddings in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from configs.activity import doing
from trainer.data.record_sets import RecordSet
from trainer.data.shard_reader import read_shards


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordPiece:
    """Consecutive records of one set.

    Attributes:
      embeddings: float32, shape [n, embedding_size]: those of the undistorted images.
      uris: n strings, as the list has them.
      label_ids: int64: the label ids of all records, one record after the other.
      label_counts: int64, shape [n].
      image_digests: uint8, shape [n, 16]: the first bytes of the SHA-256 of each image file; 0 if it is not known.
      set_number: the place of the set among the sets.
      shard: the SHA-256 of the shard that they lie in.
    """

    embeddings: np.ndarray
    uris: Sequence[str]
    label_ids: np.ndarray
    label_counts: np.ndarray
    image_digests: np.ndarray
    set_number: int
    shard: str

    def __len__(self) -> int:
        return len(self.uris)


def shards_of(sets: Sequence[RecordSet]) -> dict[str, int]:
    """The SHA-256 of all shards of some sets, in order, with the place of the set; a shard of two sets once."""
    found: dict[str, int] = {}
    for number, record_set in enumerate(sets):
        for shard in record_set.manifest.shards:
            found.setdefault(shard.sha256, number)
    return found


def read_pieces(
    sets: Sequence[RecordSet], *, without: frozenset[str] = frozenset(), what: str = "reading the records"
) -> Iterator[RecordPiece]:
    """Reads all records of some sets, in the order of sets, shards and records; a shard of two sets once.

    Args:
      sets: finished sets.
      without: the SHA-256 of shards that are left out.
      what: the words of the activity.

    Raises:
      InputError: a shard is missing, damaged or not what its manifest says.
    """
    parts = []
    seen = set(without)
    for number, found in enumerate(sets):
        for shard in found.manifest.shards:
            if shard.sha256 not in seen:
                parts.append((number, found, shard))
                seen.add(shard.sha256)
    total = sum(shard.records for _, _, shard in parts)
    with doing(what, total=total, unit="record") as reading:
        shards = read_shards([(found, shard) for _, found, shard in parts])
        for (number, _, shard), pieces in zip(parts, shards, strict=True):
            for records in pieces:
                yield RecordPiece(
                    embeddings=records.embeddings,
                    uris=records.uris,
                    label_ids=records.label_ids,
                    label_counts=records.label_counts,
                    image_digests=records.image_digests,
                    set_number=number,
                    shard=shard.sha256,
                )
                reading.advance(len(records))
