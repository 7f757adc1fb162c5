"""Record sets in memory: URIs, embeddings and label ids as numpy arrays, read and checked once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from configs.errors import InputError
from preprocess.example import EMBEDDING_FEATURE, LABEL_FEATURE, URI_FEATURE, feature_spec
from preprocess.record_set import Shard
from preprocess.tensorflow_import import without_tensorflow_noise
from trainer.record_sets import RecordSet

_PARSE_BATCH = 1024
_HASH_CHUNK_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingDataset:
    """Labelled embeddings; every example has at least one label.

    Attributes:
      uris: object array of str, shape [n].
      embeddings: float32, shape [n, embedding_size].
      label_ids: int64, the ids of all examples one after the other, in the order of the rows of the list.
      label_splits: int64, shape [n + 1]: example i has `label_ids[label_splits[i]:label_splits[i + 1]]`.
      labels: the dictionary: the name of each id.
      num_unlabeled: records without a label, which were left out.
    """

    uris: np.ndarray
    embeddings: np.ndarray
    label_ids: np.ndarray
    label_splits: np.ndarray
    labels: tuple[str, ...]
    num_unlabeled: int

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

    def label_sets(self) -> np.ndarray:
        """bool, shape [n, num_labels]: which labels each example has."""
        member = np.zeros((len(self), len(self.labels)), bool)
        member[np.repeat(np.arange(len(self)), np.diff(self.label_splits)), self.label_ids] = True
        return member

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """What a softmax is to put out for some examples: each of an example's labels in equal parts.

        Args:
          rows: int64, shape [m]: positions of the examples.

        Returns:
          float32, shape [m, num_labels]; every row adds up to 1.
        """
        counts = self.label_splits[rows + 1] - self.label_splits[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ids = self.label_ids[np.repeat(self.label_splits[rows], counts) + within]
        member = np.zeros((len(rows), len(self.labels)), np.float32)
        member[np.repeat(np.arange(len(rows)), counts), ids] = 1.0
        return member / member.sum(axis=1, keepdims=True)


def _check_digest(path: str, shard: Shard) -> None:
    # A shard of another run can have the same name, size and number of records, and a sound checksum of
    # each record: only the digest tells that its embeddings come from elsewhere.
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != shard.sha256:
        raise InputError(
            f"{path}: its contents are not what its set's manifest says (SHA-256 differs): the file was "
            "damaged or replaced. Run the pipeline again."
        )


def _shard_batches(path: str, record_set: RecordSet) -> Iterator[dict[str, tf.Tensor | tf.RaggedTensor]]:
    """Parsed batches of one shard; for the features, see `feature_spec`."""
    spec = feature_spec(record_set.manifest.backbone.embedding_size)
    compression = "GZIP" if record_set.manifest.compression == "gzip" else ""
    records = tf.data.TFRecordDataset([path], compression_type=compression)
    yield from records.batch(_PARSE_BATCH).map(lambda batch: tf.io.parse_example(batch, spec)).prefetch(2)


def _fault_words(error: Exception) -> str:
    text = str(getattr(error, "message", None) or error)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return first.replace("{{function_node", "").strip()[:200]


def read_dataset(record_sets: Sequence[RecordSet], *, flag: str) -> EmbeddingDataset:
    """Reads whole record sets into memory, in the order of sets, shards and records.

    Args:
      record_sets: at least one, from `find_record_sets`; agreeing with each other.
      flag: the option they came from, for the messages.

    Raises:
      InputError: a shard is damaged, holds another number of records than the manifest says, a label id
        that the dictionary lacks or a number that is not finite; or no record has a label.
    """
    with without_tensorflow_noise():  # It notes the size of its read buffer, for every shard.
        return _read_dataset(record_sets, flag=flag)


def _read_dataset(record_sets: Sequence[RecordSet], *, flag: str) -> EmbeddingDataset:
    labels = record_sets[0].manifest.labels
    total = sum(record_set.manifest.records for record_set in record_sets)
    embeddings = np.empty((total, record_sets[0].manifest.backbone.embedding_size), np.float32)
    uris: list[str] = []
    label_ids: list[np.ndarray] = []
    label_counts: list[np.ndarray] = []
    for record_set in record_sets:
        for shard in record_set.manifest.shards:
            path = record_set.shard_path(shard.name)
            start = len(uris)
            try:
                _check_digest(path, shard)
                for batch in _shard_batches(path, record_set):
                    values = batch[EMBEDDING_FEATURE].numpy()
                    if len(uris) + len(values) - start > shard.records:
                        raise InputError(f"{path}: holds more than the {shard.records} records of its manifest.")
                    embeddings[len(uris) : len(uris) + len(values)] = values
                    uris.extend(uri.decode("utf-8", "replace") for uri in batch[URI_FEATURE].numpy())
                    label_ids.append(batch[LABEL_FEATURE].values.numpy())
                    label_counts.append(batch[LABEL_FEATURE].row_lengths().numpy())
            except tf.errors.OpError as error:
                raise InputError(
                    f"{path}: cannot be read as a shard of examples ({_fault_words(error)}). Run the pipeline again."
                ) from error
            if len(uris) - start != shard.records:
                raise InputError(
                    f"{path}: holds {len(uris) - start} records, its set's manifest says {shard.records}. "
                    "Run the pipeline again."
                )
            _check_values(path, embeddings[start : len(uris)], label_ids, labels, uris[start:])
    return _labelled(uris, embeddings, label_ids, label_counts, labels, flag)


def _check_values(
    path: str, embeddings: np.ndarray, label_ids: list[np.ndarray], labels: Sequence[str], uris: list[str]
) -> None:
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(f"{path}: the embedding of {uris[row]} holds a number that is not finite.")
    for ids in label_ids:
        if ids.size and not 0 <= ids.min() <= ids.max() < len(labels):
            bad = ids.max() if ids.max() >= len(labels) else ids.min()
            raise InputError(f"{path}: label id {bad}, but its set's dictionary has {len(labels)} labels.")


def _labelled(
    uris: list[str],
    embeddings: np.ndarray,
    label_ids: list[np.ndarray],
    label_counts: list[np.ndarray],
    labels: tuple[str, ...],
    flag: str,
) -> EmbeddingDataset:
    """Leaves out the records without a label, which take no part in training or evaluation."""
    counts = np.concatenate(label_counts)
    keep = counts > 0
    if not keep.any():
        raise InputError(f"--{flag}: none of the {len(uris)} records has a label, so there is nothing to learn from.")
    # The embeddings are the bulk: copied only where a record really goes.
    kept_embeddings = embeddings if keep.all() else embeddings[keep]
    return EmbeddingDataset(
        uris=np.array(uris, dtype=object)[keep],
        embeddings=kept_embeddings,
        label_ids=np.concatenate(label_ids),
        label_splits=np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
        labels=labels,
        num_unlabeled=int((~keep).sum()),
    )


def data_warnings(train: EmbeddingDataset, held_out: EmbeddingDataset, *, held_out_name: str) -> list[str]:
    """What a user should know about two data sets before believing numbers from them; sentences.

    Classes without an example, images on both sides, and records without a label.
    """
    warnings = []
    train_support = train.label_sets().sum(axis=0)
    held_out_support = held_out.label_sets().sum(axis=0)
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
