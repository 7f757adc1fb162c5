"""Record sets as labelled embeddings. They are read and checked once; what does not fit in memory is read again."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from configs.activity import doing
from configs.choices import RequestedLabelMode, Unlabeled
from configs.counts import counted
from configs.errors import InputError
from preprocess.lists.corrections import Corrections
from preprocess.records.record_set import Shard
from trainer.data.corrected import AppliedCorrection, corrected
from trainer.data.embeddings import Embeddings, MemoryEmbeddings, MemoryViews, StreamedEmbeddings
from trainer.data.feature_statistics import FeatureStatistics
from trainer.data.label_mode import LabelMode
from trainer.data.memory import MemoryBudget
from trainer.data.record_parser import Records
from trainer.data.record_sets import RecordSet
from trainer.data.shard_reader import read_shards

# A smaller pool would hardly shuffle, so this is the minimum even when the memory budget is smaller.
_MIN_POOL_ROWS = 1024

# The class of records without a label, if the user asks for such a class.
UNLABELED_CLASS = "unlabeled"

# In a set with one label per example, a few rows may still have two labels. (The published sample has such rows; both
# labels then count equally.) In a set with several labels per example, such rows are common. The limit lies between.
_MULTI_LABEL_SHARE = 0.1

# If more classes than this lack examples, one warning counts them instead of naming each.
_MAX_CLASSES_NAMED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabeledExamples:
    """Labelled examples without their embeddings; every example has at least one label.

    Attributes:
      uris: object array of str, shape [n].
      label_ids: int64, the label ids of all examples, one example after the other, in the order of the list's rows.
      label_splits: int64, shape [n + 1]: example i has `label_ids[label_splits[i]:label_splits[i + 1]]`.
      labels: the dictionary: the name of each id.
      num_unlabeled: how many records were left out because they have no label.
      label_mode: "single" if one label is right for an example, "multi" if any number may be.
      image_digests: uint8, shape [n, 16]: the first bytes of the SHA-256 of each image file; all 0 for an image whose
        digest is not known. None if no digest is known.
    """

    uris: np.ndarray
    label_ids: np.ndarray
    label_splits: np.ndarray
    labels: tuple[str, ...]
    num_unlabeled: int
    label_mode: LabelMode = "single"
    image_digests: np.ndarray | None = None

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
        # This does not use `label_sets`, which takes a gigabyte for a million examples of a thousand classes.
        owners = np.repeat(np.arange(len(self)), np.diff(self.label_splits))
        pairs = np.unique(owners * len(self.labels) + self.label_ids)  # A row may name a label twice.
        return np.bincount(pairs % len(self.labels), minlength=len(self.labels))

    def label_sets(self) -> np.ndarray:
        """bool, shape [n, num_labels]: which labels each example has."""
        member = np.zeros((len(self), len(self.labels)), bool)
        member[np.repeat(np.arange(len(self)), np.diff(self.label_splits)), self.label_ids] = True
        return member

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """The scores that training aims at for some examples.

        Args:
          rows: int64, shape [m]: positions of the examples.

        Returns:
          float32, shape [m, num_labels]. For a softmax (`label_mode` "single"), the labels of an example share 1 in
          equal parts, so every row adds up to 1. For sigmoids ("multi"), each label of an example is 1 and all others
          are 0.
        """
        counts = self.label_splits[rows + 1] - self.label_splits[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ids = self.label_ids[np.repeat(self.label_splits[rows], counts) + within]
        member = np.zeros((len(rows), len(self.labels)), np.float32)
        member[np.repeat(np.arange(len(rows)), counts), ids] = 1.0
        return member if self.label_mode == "multi" else member / member.sum(axis=1, keepdims=True)

    def labels_of(self, row: int) -> list[str]:
        """The labels of one example, each once, in the order of the list's row."""
        ids = self.label_ids[self.label_splits[row] : self.label_splits[row + 1]]
        return [self.labels[i] for i in dict.fromkeys(ids.tolist())]

    def image_digest_of(self, row: int) -> str | None:
        """The first 16 bytes of the SHA-256 of the image file of one example, in hexadecimal; None if not known."""
        if self.image_digests is None or not self.image_digests[row].any():
            return None
        return self.image_digests[row].tobytes().hex()

    def examples_at(self, rows: np.ndarray) -> LabeledExamples:
        """Some of the examples, without embeddings.

        Args:
          rows: int64, shape [m], ascending and distinct.
        """
        counts = np.diff(self.label_splits)
        chosen = np.zeros(len(self), bool)
        chosen[rows] = True
        return LabeledExamples(
            uris=self.uris[rows],
            label_ids=self.label_ids[np.repeat(chosen, counts)],
            label_splits=np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int64),
            labels=self.labels,
            num_unlabeled=0,
            label_mode=self.label_mode,
            image_digests=None if self.image_digests is None else self.image_digests[rows],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingDataset(LabeledExamples):
    """Labelled examples with their embeddings.

    Attributes:
      embeddings: the embeddings of the n examples.
      source: a digest of the files that the examples were read from; empty if they come from elsewhere.
      corrections: the corrections that were applied to the records.
      set_starts: the prefix of each record set and its first example, in their order; empty if not from sets.
    """

    embeddings: Embeddings
    source: str = ""
    corrections: tuple[AppliedCorrection, ...] = ()
    set_starts: tuple[tuple[str, int], ...] = ()

    def digest(self) -> str:
        """A digest of all that training can learn from: the examples and their order, the labels and the mode.

        Where the embeddings are in memory and `source` is empty, the digest covers the embeddings themselves.
        """
        described: tuple[object, ...] = (self.source, self.labels, self.label_mode, self.embeddings.shape)
        if self.embeddings.num_views > 1:
            described = (*described, self.embeddings.num_views)
        digest = hashlib.sha256(repr(described).encode())
        for array in (self.label_ids, self.label_splits):
            digest.update(array.astype(np.int64).tobytes())
        for piece in () if self.source else self.embeddings.view_pieces():
            digest.update(piece.tobytes())
        return digest.hexdigest()


def label_mode_of(train: EmbeddingDataset, requested: RequestedLabelMode) -> LabelMode:
    """Whether an example has one label or may have several: as requested, or as the training set shows.

    "auto" means "multi" if at least a tenth of the training examples have more than one label.
    """
    if requested != "auto":
        return requested
    return "multi" if train.num_multi_label >= _MULTI_LABEL_SHARE * len(train) else "single"


def in_label_mode(data: Mapping[str, EmbeddingDataset], requested: RequestedLabelMode) -> dict[str, EmbeddingDataset]:
    """The data sets of a run, all in the label mode of the one named "train" (see `label_mode_of`)."""
    mode = label_mode_of(data["train"], requested)
    return {name: dataclasses.replace(dataset, label_mode=mode) for name, dataset in data.items()}


def _usable(records: Records, default_id: int | None) -> Records:
    """Leaves out records without a label, or gives them the default label if there is one."""
    labelled = records.label_counts > 0
    if labelled.all():
        return records
    if default_id is None:
        return Records(
            uris=list(itertools.compress(records.uris, labelled)),
            views=records.views[labelled],
            label_ids=records.label_ids,
            label_counts=records.label_counts[labelled],
            image_digests=records.image_digests[labelled],
            image_hashes=records.image_hashes[labelled],
        )
    places = np.cumsum(records.label_counts)[~labelled]
    return dataclasses.replace(
        records,
        label_ids=np.insert(records.label_ids, places, default_id),
        label_counts=np.maximum(records.label_counts, 1),
    )


def _source(record_sets: Sequence[RecordSet], unlabeled: str, corrections: Corrections | None) -> str:
    network = record_sets[0].manifest.backbone.network
    shards = [shard.sha256 for record_set in record_sets for shard in record_set.manifest.shards]
    described = (sorted(network.items()), shards, unlabeled, *(() if corrections is None else (corrections.sha256,)))
    return hashlib.sha256(repr(described).encode()).hexdigest()


def read_dataset(
    record_sets: Sequence[RecordSet],
    *,
    flag: str,
    budget: MemoryBudget | None = None,
    unlabeled: Unlabeled = "drop",
    all_views: bool = False,
    corrections: Corrections | None = None,
) -> EmbeddingDataset:
    """Reads whole record sets once, in the order of sets, shards and records.

    Args:
      record_sets: at least one, from `find_record_sets`; they agree with each other.
      flag: the option that named them, for the messages.
      budget: the memory that embeddings may take. If the embeddings fit, they are kept, and their size is subtracted.
        If not, they are read again at each use, and half of the remaining budget is reserved for their shuffle. None
        keeps all embeddings.
      unlabeled: "drop" leaves out records without a label. "default_class" gives them the label `UNLABELED_CLASS`.
        This label is added as the last one unless the dictionary already has it.
      all_views: whether to read all views of each image, which are then the same in all sets; else only view 0, that of
        the undistorted image, is read.
      corrections: change labels and remove records, here and whenever embeddings are read again; None for none.

    Raises:
      InputError: a shard is damaged, or does not hold as many records as the manifest says; a record has a label id
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
    num_views = record_sets[0].num_views if all_views else 1
    keep = budget is None or budget.take(total * num_views * row_bytes)
    array = np.empty((num_views, total if keep else 0, size), np.float32)
    statistics = FeatureStatistics(size)
    uris: list[str] = []
    label_ids: list[np.ndarray] = []
    label_counts: list[np.ndarray] = []
    image_digests: list[np.ndarray] = []
    applied: list[AppliedCorrection] = []
    data_set = flag.removesuffix("_data_paths")
    filled = 0  # Rows of the array that are filled; records that are left out take no row.
    parts = [(record_set, shard) for record_set in record_sets for shard in record_set.manifest.shards]
    first_rows = [0]
    with doing(f"reading the records of --{flag}", total=total, unit="record") as reading:
        # What is streamed later needs only view 0 now, but damage in any view is found before training.
        for shard_records in read_shards(parts, all_views=all_views):
            for records in shard_records:
                right = records
                if corrections is not None:
                    right, found = corrected(records, corrections, labels, data_set=data_set)
                    applied += found
                usable = _usable(right, default_id)
                if keep:
                    array[:, filled : filled + len(usable)] = usable.views.swapaxes(0, 1)
                else:
                    statistics.update(usable.embeddings)
                filled += len(usable)
                uris.extend(usable.uris)
                label_ids.append(usable.label_ids)
                label_counts.append(usable.label_counts)
                image_digests.append(usable.image_digests)
                reading.advance(len(records))
            first_rows.append(filled)
    if not filled:
        raise InputError(
            f"--{flag}: none of the {counted(total, 'record')} has a label, so there is nothing to learn from."
        )
    first_shards = itertools.accumulate((len(one.manifest.shards) for one in record_sets[:-1]), initial=0)
    set_starts = [(one.prefix, first_rows[shard]) for one, shard in zip(record_sets, first_shards, strict=True)]
    embeddings: Embeddings
    if budget is None or keep:
        embeddings = _in_memory(array, filled)
    else:
        pool_rows = max(_MIN_POOL_ROWS, budget.left // 2 // row_bytes)
        budget.take(min(pool_rows * row_bytes, budget.left))
        embeddings = StreamedEmbeddings(
            functools.partial(_read_parts, parts, first_rows, default_id, corrections, False),
            num_parts=len(parts),
            shape=(filled, size),
            statistics=statistics,
            pool_rows=pool_rows,
            num_views=num_views,
            read_views=functools.partial(_read_parts, parts, first_rows, default_id, corrections, True)
            if num_views > 1
            else None,
        )
    return EmbeddingDataset(
        uris=np.array(uris, dtype=object),
        embeddings=embeddings,
        label_ids=np.concatenate(label_ids),
        label_splits=np.concatenate([[0], np.cumsum(np.concatenate(label_counts))]).astype(np.int64),
        labels=labels,
        num_unlabeled=total - filled - sum(one.correction.action == "remove" for one in applied),
        image_digests=np.concatenate(image_digests),
        source=_source(record_sets, unlabeled, corrections),
        corrections=tuple(applied),
        set_starts=tuple(set_starts),
    )


def _in_memory(views: np.ndarray, count: int) -> MemoryEmbeddings:
    """The first `count` rows of each view, of float32 [views, n, embedding_size], without a copy."""
    num_views, rows, size = views.shape
    if num_views == 1:
        return MemoryEmbeddings(views[0, :count])
    flat = views.reshape(num_views * rows, size)
    # Some records were left out: the views move together, so that they are one array without gaps.
    for view in range(1, num_views) if count < rows else ():
        flat[view * count : (view + 1) * count] = flat[view * rows : view * rows + count]
    return MemoryViews(flat[: num_views * count].reshape(num_views, count, size))


def _read_parts(
    parts: Sequence[tuple[RecordSet, Shard]],
    first_rows: Sequence[int],
    default_id: int | None,
    corrections: Corrections | None,
    all_views: bool,
    order: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and embeddings of the usable records of some shards. The shards are checked again, as at first.

    With `all_views`, the embeddings are float32 [m, views, embedding_size], and else [m, embedding_size].
    """
    shards = read_shards([parts[number] for number in order], all_views=all_views)
    for number, shard_records in zip(order, shards, strict=True):
        row = first_rows[number]
        for records in shard_records:
            if corrections is not None:
                records, _ = corrected(records, corrections, parts[number][0].manifest.labels)
            usable = _usable(records, default_id)
            if len(usable):
                yield np.arange(row, row + len(usable)), usable.views if all_views else usable.embeddings
            row += len(usable)


def data_warnings(train: EmbeddingDataset, held_out: EmbeddingDataset, *, held_out_name: str) -> list[str]:
    """Warnings about two data sets, which a user should know before trusting numbers from them; sentences.

    They name classes without an example, and records without a label. Images that are in both sets are the subject of
    `shared_images`.
    """
    warnings = []
    for name, support, consequence in (
        ("training", train.support(), "the model will never name {}"),
        (held_out_name, held_out.support(), "how well the model recognizes {} is unknown"),
    ):
        empty = [label for label, count in zip(train.labels, support, strict=True) if not count]
        if len(empty) <= _MAX_CLASSES_NAMED:
            warnings += [f"class {label!r} has no {name} example: {consequence.format('it')}" for label in empty]
        else:
            some = ", ".join(repr(label) for label in empty[:_MAX_CLASSES_NAMED])
            warnings.append(
                f"{len(empty)} of the {len(train.labels)} classes have no {name} example ({some} and "
                f"{len(empty) - _MAX_CLASSES_NAMED} more): {consequence.format('them')}"
            )
    for name, dataset in (("training", train), (held_out_name, held_out)):
        if count := dataset.num_unlabeled:
            words = "1 {} record has no label and is" if count == 1 else f"{count} {{}} records have no label and are"
            warnings.append(f"{words.format(name)} left out")
    return warnings
