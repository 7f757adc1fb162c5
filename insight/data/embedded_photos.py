"""The records of finished sets as arrays in memory: what every program of this package begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from preprocess.records.example import HASH_BYTES
from trainer.data.memory import MemoryBudget
from trainer.data.record_sets import RecordSet, require_agreement
from trainer.data.shard_reader import read_shards

_MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedPhotos:
    """The n records of some sets, in the order of sets, shards and records. Records without a label are among them.

    Attributes:
      uris: object array of str, shape [n]; as the lists have them, so a relative one belongs to the list of its set.
      embeddings: float32, shape [n, embedding_size]: those of the undistorted images, as the network gave them.
      label_ids: int64: the label ids of all records, one record after the other.
      label_splits: int64, shape [n + 1]: record i has `label_ids[label_splits[i]:label_splits[i + 1]]`, maybe none.
      labels: the dictionary: the name of each id.
      image_digests: uint8, shape [n, 16]: the first bytes of the SHA-256 of each image file; 0 if it is not known.
      image_hashes: uint8, shape [n, 32]: the perceptual hash of each image; 0 if it is not known.
      set_numbers: int32, shape [n]: the place in `sets` of the set that each record belongs to.
      sets: the record sets.
    """

    uris: np.ndarray
    embeddings: np.ndarray
    label_ids: np.ndarray
    label_splits: np.ndarray
    labels: tuple[str, ...]
    image_digests: np.ndarray
    image_hashes: np.ndarray
    set_numbers: np.ndarray
    sets: tuple[RecordSet, ...]

    def __len__(self) -> int:
        return len(self.uris)

    @property
    def label_counts(self) -> np.ndarray:
        """int64, shape [n]: how many labels each record has."""
        return np.diff(self.label_splits)

    @property
    def first_label_ids(self) -> np.ndarray:
        """int64, shape [n]: the first label of each record; -1 for a record without a label."""
        first = np.full(len(self), -1, np.int64)
        labelled = self.label_counts > 0
        first[labelled] = self.label_ids[self.label_splits[:-1][labelled]]
        return first

    def labels_of(self, row: int) -> list[str]:
        """The names of the labels of one record, each once, in the order of the list's row."""
        ids = self.label_ids[self.label_splits[row] : self.label_splits[row + 1]]
        return [self.labels[label_id] for label_id in dict.fromkeys(ids.tolist())]

    def set_of(self, row: int) -> RecordSet:
        """The set that one record belongs to."""
        return self.sets[int(self.set_numbers[row])]

    def digest_of(self, row: int) -> str | None:
        """The first 16 bytes of the SHA-256 of the image file of one record, in hexadecimal; None if not known."""
        digest = self.image_digests[row]
        return digest.tobytes().hex() if digest.any() else None

    def at(self, rows: np.ndarray) -> EmbeddedPhotos:
        """Some of the records. `rows`: int64, shape [m], distinct, in any order."""
        starts, counts = self.label_splits[:-1][rows], self.label_counts[rows]
        splits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(splits[-1]) - np.repeat(splits[:-1], counts)
        return dataclasses.replace(
            self,
            uris=self.uris[rows],
            embeddings=self.embeddings[rows],
            label_ids=self.label_ids[np.repeat(starts, counts) + within],
            label_splits=splits,
            image_digests=self.image_digests[rows],
            image_hashes=self.image_hashes[rows],
            set_numbers=self.set_numbers[rows],
        )


def read_embedded_photos(sets: Sequence[RecordSet], *, flag: str, only_labelled: bool = False) -> EmbeddedPhotos:
    """Reads all records of some sets, with their embeddings.

    Args:
      sets: as `find_record_sets` gives them.
      flag: the option that named them, for the messages.
      only_labelled: leaves out records without a label while they are read, which takes less memory than `at`.

    Raises:
      InputError: sets come from different backbones or have different labels; a shard is
        damaged; there is no record; or the embeddings do not fit in memory.
    """
    require_agreement(sets)
    total = sum(record_set.manifest.records for record_set in sets)
    size = sets[0].manifest.backbone.embedding_size
    budget = MemoryBudget(None)
    if not budget.take(total * size * 4):
        raise InputError(
            f"--{flag}: the embeddings of {counted(total, 'record')} take {total * size * 4 // _MEBIBYTE:,} MiB of "
            f"memory, and {budget.left // _MEBIBYTE:,} MiB may be used here, half of what is available. Name fewer "
            "sets, or use a machine with more memory."
        )
    embeddings = np.empty((total, size), np.float32)
    uris = np.empty(total, object)
    digests = np.empty((total, 16), np.uint8)
    hashes = np.empty((total, HASH_BYTES), np.uint8)
    label_ids: list[np.ndarray] = []
    label_counts = np.empty(total, np.int64)
    set_numbers = np.empty(total, np.int32)
    filled = 0
    parts = [(record_set, shard) for record_set in sets for shard in record_set.manifest.shards]
    numbers = [number for number, record_set in enumerate(sets) for _ in record_set.manifest.shards]
    with doing(f"reading the records of --{flag}", total=total, unit="record") as reading:
        for number, shard_records in zip(numbers, read_shards(parts), strict=True):
            for records in shard_records:
                # A slice, where all are kept, copies nothing.
                kept = np.flatnonzero(records.label_counts > 0) if only_labelled else slice(0, len(records))
                count = len(kept) if isinstance(kept, np.ndarray) else len(records)
                place = slice(filled, filled + count)
                embeddings[place] = records.embeddings[kept]
                uris[place] = np.asarray(records.uris, object)[kept]
                digests[place] = records.image_digests[kept]
                hashes[place] = records.image_hashes[kept]
                label_counts[place] = records.label_counts[kept]
                label_ids.append(records.label_ids)
                set_numbers[place] = number
                filled = place.stop
                reading.advance(len(records))
    return EmbeddedPhotos(
        uris=uris[:filled],
        embeddings=embeddings[:filled],
        label_ids=np.concatenate(label_ids),
        label_splits=np.concatenate([[0], np.cumsum(label_counts[:filled])]).astype(np.int64),
        labels=sets[0].manifest.labels,
        image_digests=digests[:filled],
        image_hashes=hashes[:filled],
        set_numbers=set_numbers[:filled],
        sets=tuple(sets),
    )
