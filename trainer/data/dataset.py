"""Record sets as labelled embeddings: read and checked whole, once; embeddings that do not fit, again at each use."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from configs.choices import RequestedLabelMode, Unlabeled
from configs.errors import InputError
from preprocess.records.record_set import Shard
from trainer.data.embeddings import Embeddings, MemoryEmbeddings, StreamedEmbeddings
from trainer.data.feature_statistics import RunningMoments
from trainer.data.label_mode import LabelMode
from trainer.data.memory import MemoryBudget
from trainer.data.record_parser import Records
from trainer.data.record_sets import RecordSet
from trainer.data.shard_reader import read_shards

# A shuffle among fewer is hardly one, whatever the budget says.
_MIN_POOL_ROWS = 1024

# The class of the records without a label, where they are to be one.
UNLABELED_CLASS = "unlabeled"

# Sets of the one kind are not without a row of two labels (the published sample trains those in equal parts), and
# sets of the other are full of them. Between the two lies much room.
_MULTI_LABEL_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingDataset:
    """Labelled embeddings; every example has at least one label.

    Attributes:
      uris: object array of str, shape [n].
      embeddings: of the n examples.
      label_ids: int64, the ids of all examples one after the other, in the order of the rows of the list.
      label_splits: int64, shape [n + 1]: example i has `label_ids[label_splits[i]:label_splits[i + 1]]`.
      labels: the dictionary: the name of each id.
      num_unlabeled: records without a label, which were left out.
      label_mode: "single" if one label is right for an example, "multi" if any number may be.
      source: a digest of the files that the examples were read from; empty if they come from elsewhere.
    """

    uris: np.ndarray
    embeddings: Embeddings
    label_ids: np.ndarray
    label_splits: np.ndarray
    labels: tuple[str, ...]
    num_unlabeled: int
    label_mode: LabelMode = "single"
    source: str = ""

    def __len__(self) -> int:
        return len(self.uris)

    @property
    def first_label_ids(self) -> np.ndarray:
        """int64, shape [n]: the first label of each example."""
        return self.label_ids[self.label_splits[:-1]]

    @property
    def num_multi_label(self) -> int:
        """How many examples have more than one label."""
        return int((np.diff(self.label_splits) > 1).sum())

    def support(self) -> np.ndarray:
        """int64, shape [num_labels]: how many examples have each label."""
        # Without `label_sets`, which for a million examples of a thousand classes is a gigabyte.
        owners = np.repeat(np.arange(len(self)), np.diff(self.label_splits))
        pairs = np.unique(owners * len(self.labels) + self.label_ids)  # A label may be given twice.
        return np.bincount(pairs % len(self.labels), minlength=len(self.labels))

    def label_sets(self) -> np.ndarray:
        """bool, shape [n, num_labels]: which labels each example has."""
        member = np.zeros((len(self), len(self.labels)), bool)
        member[np.repeat(np.arange(len(self)), np.diff(self.label_splits)), self.label_ids] = True
        return member

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """What the scores of some examples are to be.

        Args:
          rows: int64, shape [m]: positions of the examples.

        Returns:
          float32, shape [m, num_labels]. For a softmax (`label_mode` "single") each of an example's labels in equal
          parts, so that every row adds up to 1; for sigmoids ("multi") 1 for each of its labels and 0 for all others.
        """
        counts = self.label_splits[rows + 1] - self.label_splits[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ids = self.label_ids[np.repeat(self.label_splits[rows], counts) + within]
        member = np.zeros((len(rows), len(self.labels)), np.float32)
        member[np.repeat(np.arange(len(rows)), counts), ids] = 1.0
        return member if self.label_mode == "multi" else member / member.sum(axis=1, keepdims=True)

    def digest(self) -> str:
        """A digest of all that training can learn from: the examples and their order, labels and mode.

        In memory and without `source`, the embeddings themselves are gone through.
        """
        digest = hashlib.sha256(repr((self.source, self.labels, self.label_mode, self.embeddings.shape)).encode())
        for array in (self.label_ids, self.label_splits):
            digest.update(array.astype(np.int64).tobytes())
        for piece in () if self.source else self.embeddings.pieces():
            digest.update(piece.tobytes())
        return digest.hexdigest()


def label_mode_of(train: EmbeddingDataset, requested: RequestedLabelMode) -> LabelMode:
    """Whether one label or several are right for an example: as requested, or as the training set has it.

    "auto" is "multi" if at least a tenth of the training examples have more than one label.
    """
    if requested != "auto":
        return requested
    return "multi" if train.num_multi_label >= _MULTI_LABEL_SHARE * len(train) else "single"


def in_label_mode(data: Mapping[str, EmbeddingDataset], requested: RequestedLabelMode) -> dict[str, EmbeddingDataset]:
    """The data sets of a run, all in the label mode of the one named "train" (see `label_mode_of`)."""
    mode = label_mode_of(data["train"], requested)
    return {name: dataclasses.replace(dataset, label_mode=mode) for name, dataset in data.items()}


def _usable(records: Records, default_id: int | None) -> Records:
    """Without the records that have no label, or with the default label for them."""
    labelled = records.label_counts > 0
    if labelled.all():
        return records
    if default_id is None:
        return Records(
            uris=list(itertools.compress(records.uris, labelled)),
            embeddings=records.embeddings[labelled],
            label_ids=records.label_ids,
            label_counts=records.label_counts[labelled],
        )
    places = np.cumsum(records.label_counts)[~labelled]
    return dataclasses.replace(
        records,
        label_ids=np.insert(records.label_ids, places, default_id),
        label_counts=np.maximum(records.label_counts, 1),
    )


def _source(record_sets: Sequence[RecordSet], unlabeled: str) -> str:
    network = record_sets[0].manifest.backbone.network
    shards = [shard.sha256 for record_set in record_sets for shard in record_set.manifest.shards]
    return hashlib.sha256(repr((sorted(network.items()), shards, unlabeled)).encode()).hexdigest()


def read_dataset(
    record_sets: Sequence[RecordSet],
    *,
    flag: str,
    budget: MemoryBudget | None = None,
    unlabeled: Unlabeled = "drop",
) -> EmbeddingDataset:
    """Reads whole record sets once, in the order of sets, shards and records.

    Args:
      record_sets: at least one, from `find_record_sets`; agreeing with each other.
      flag: the option they came from, for the messages.
      budget: embeddings that do not fit what is left of it are not kept, but read again at each use. What is
        kept, and half of what is left for a shuffle of what is not, is taken from it. None: all are kept.
      unlabeled: "drop" leaves out records without a label. "default_class" gives them the label `UNLABELED_CLASS`,
        which becomes the last of the labels unless the dictionary has it already.

    Raises:
      InputError: a shard is damaged, holds another number of records than the manifest says, a label id
        that the dictionary lacks or a number that is not finite; or no record has a label.
    """
    size = record_sets[0].manifest.backbone.embedding_size
    labels = record_sets[0].manifest.labels
    default_id = None
    if unlabeled == "default_class":
        if UNLABELED_CLASS not in labels:
            labels = (*labels, UNLABELED_CLASS)
        default_id = labels.index(UNLABELED_CLASS)
    total = sum(record_set.manifest.records for record_set in record_sets)
    row_bytes = 4 * size
    keep = budget is None or budget.take(total * row_bytes)
    array = np.empty((total if keep else 0, size), np.float32)
    moments = RunningMoments(size)
    uris: list[str] = []
    label_ids: list[np.ndarray] = []
    label_counts: list[np.ndarray] = []
    filled = 0  # Rows of the array; records that are left out get none.
    parts = [(record_set, shard) for record_set in record_sets for shard in record_set.manifest.shards]
    first_rows = [0]
    for shard_records in read_shards(parts):
        for records in shard_records:
            usable = _usable(records, default_id)
            if keep:
                array[filled : filled + len(usable)] = usable.embeddings
            else:
                moments.update(usable.embeddings)
            filled += len(usable)
            uris.extend(usable.uris)
            label_ids.append(usable.label_ids)
            label_counts.append(usable.label_counts)
        first_rows.append(filled)
    if not filled:
        raise InputError(f"--{flag}: none of the {total} records has a label, so there is nothing to learn from.")
    embeddings: Embeddings
    if budget is None or keep:
        embeddings = MemoryEmbeddings(array[:filled])
    else:
        pool_rows = max(_MIN_POOL_ROWS, budget.left // 2 // row_bytes)
        budget.take(min(pool_rows * row_bytes, budget.left))
        embeddings = StreamedEmbeddings(
            functools.partial(_read_parts, parts, first_rows, default_id),
            num_parts=len(parts),
            shape=(filled, size),
            moments=moments,
            pool_rows=pool_rows,
        )
    return EmbeddingDataset(
        uris=np.array(uris, dtype=object),
        embeddings=embeddings,
        label_ids=np.concatenate(label_ids),
        label_splits=np.concatenate([[0], np.cumsum(np.concatenate(label_counts))]).astype(np.int64),
        labels=labels,
        num_unlabeled=total - filled,
        source=_source(record_sets, unlabeled),
    )


def _read_parts(
    parts: Sequence[tuple[RecordSet, Shard]], first_rows: Sequence[int], default_id: int | None, order: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and embeddings of the usable records of some shards, which are checked as at the first time."""
    for number, shard_records in zip(order, read_shards([parts[number] for number in order]), strict=True):
        row = first_rows[number]
        for records in shard_records:
            usable = _usable(records, default_id)
            if len(usable):
                yield np.arange(row, row + len(usable)), usable.embeddings
            row += len(usable)


def data_warnings(train: EmbeddingDataset, held_out: EmbeddingDataset, *, held_out_name: str) -> list[str]:
    """What a user should know about two data sets before believing numbers from them; sentences.

    Classes without an example, images on both sides, and records without a label.
    """
    warnings = []
    train_support = train.support()
    held_out_support = held_out.support()
    for name, support, consequence in (
        ("training", train_support, "the model will never name it"),
        (held_out_name, held_out_support, "nothing is known about how well it is told apart"),
    ):
        for label, count in zip(train.labels, support, strict=True):
            if not count:
                warnings.append(f"class {label!r} has no {name} example: {consequence}")
    shared = len(set(train.uris) & set(held_out.uris))
    if shared:
        warnings.append(f"{shared} images are both training and {held_out_name} examples: accuracy will look too good")
    for name, dataset in (("training", train), (held_out_name, held_out)):
        if dataset.num_unlabeled:
            warnings.append(f"{dataset.num_unlabeled} {name} records have no label and are left out")
    return warnings
