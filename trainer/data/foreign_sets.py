"""Record sets made elsewhere: TFRecords with the same three features, but without a manifest.

The trainer reads the files of such a set once to find what the manifest of our own sets says: the number of records,
valid checksums, and the digest by which later reads recognize a changed file. The files do not say which network made
the embeddings, so such a set is unverified.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

from configs.activity import doing
from configs.choices import Compression
from configs.errors import InputError
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.lists.labels import MAX_LABEL_DICT_BYTES, parse_label_dict
from preprocess.records.backbone_identity import UNVERIFIED, BackboneIdentity
from preprocess.records.example import EMBEDDING_FEATURE, LABEL_FEATURE, URI_FEATURE
from preprocess.records.record_set import Manifest, Shard
from preprocess.records.tfrecord import MalformedRecordError, decompressed, split_frames
from preprocess.storage.digests import digest_of_file
from preprocess.storage.router import local_copy
from trainer.storage.files import cause_of, storage

_CHUNK_BYTES = 4 << 20

_NUMBERED = re.compile(r"-(?P<index>\d{5,})-of-(?P<count>\d{5,})\D*$")


def unverified_identity(embedding_size: int) -> BackboneIdentity:
    """The identity of a network of which only the size of its embeddings is known."""
    return BackboneIdentity(
        architecture=UNVERIFIED,
        weights=UNVERIFIED,
        seed=None,
        weights_digest=UNVERIFIED,
        embedding_size=embedding_size,
        image_definition=UNVERIFIED,
    )


def read_labels(path: str) -> tuple[str, ...]:
    """The labels of a dict.txt, in order of their ids.

    Raises:
      InputError: it cannot be read or breaks a rule of such files.
    """
    try:
        raw = storage().read(path, max_bytes=MAX_LABEL_DICT_BYTES)
    except OSError as error:  # TooLarge is a subclass of it.
        raise InputError(f"--input_dict: cannot read {path}: {cause_of(error)}") from error
    return parse_label_dict(raw, where=path).names


def make_manifest(prefix: str, names: Iterable[str], labels: tuple[str, ...], *, flag: str) -> Manifest:
    """Makes the manifest that the set lacks; reads every file.

    For a set in a bucket, one file at a time is held on disk.

    Args:
      prefix: the prefix of the set.
      names: the names of its files, in the folder of the prefix.
      labels: the dictionary.
      flag: the option that named the files, for the messages.

    Raises:
      InputError: a file is missing, damaged or not a TFRecord file; or its first record lacks one of the features.
    """
    names = sorted(names)
    _require_complete(prefix, names, flag)
    compression = _compression(names, prefix, flag)
    size = None
    shards = []
    for name in names:
        path = posixpath.join(posixpath.dirname(prefix), name)
        try:
            with doing(f"checking {path}, which has no manifest"), local_copy(path, storage()) as copy:
                count, first = _count_records(copy, compression)
                if first is not None and size is None:
                    size = _embedding_size(first, path, flag)
                shards.append(_shard(copy, count))
        except MalformedRecordError as error:
            raise InputError(
                f"--{flag}: {path} cannot be read as a TFRecord file ({error}). Copy or make it again."
            ) from error
        except OSError as error:
            raise InputError(f"--{flag}: {path} cannot be read ({cause_of(error)}).") from error
    if size is None:
        raise InputError(f"--{flag}: the record set {prefix} holds no records.")
    return Manifest(
        backbone=unverified_identity(size),
        labels=labels,
        compression=compression,
        records=sum(shard.records for shard in shards),
        shards=tuple(shards),
    )


def _count_records(path: str, compression: Compression) -> tuple[int, bytes | None]:
    """The number of records in a file, and the first record.

    TensorFlow's reader is not used: it allocates as much memory as the length field of a record says, and crashes if
    there is not enough. Later reads are checked by the digest in the manifest.

    Raises:
      MalformedRecordError: it is not a TFRecord file, or a checksum is wrong.
    """
    count, first = 0, None
    with open(path, "rb") as stream:
        chunks = iter(lambda: stream.read(_CHUNK_BYTES), b"")
        for data, spans in split_frames(decompressed(chunks) if compression == "gzip" else chunks, check=True):
            if first is None:
                first = data[slice(*spans[0])]
            count += len(spans)
    return count, first


def _require_complete(prefix: str, names: list[str], flag: str) -> None:
    matches = [match for name in names if (match := _NUMBERED.search(name))]
    count = max((int(match["count"]) for match in matches), default=0)
    missing = sorted(set(range(count)) - {int(match["index"]) for match in matches})
    if missing:
        raise InputError(
            f"--{flag}: the record set {prefix} is incomplete: its files are numbered as {count}, and number "
            f"{missing[0]} is not among those named. Name the whole set: '{prefix}*'."
        )


def _compression(names: list[str], prefix: str, flag: str) -> Compression:
    compressed = {name.endswith(".gz") for name in names}
    if len(compressed) > 1:
        raise InputError(f"--{flag}: the record set {prefix} has files with and without .gz. Name those of one run.")
    return "gzip" if compressed.pop() else "none"


def _shard(path: str, records: int) -> Shard:
    name, num_bytes = posixpath.basename(path), os.path.getsize(path)
    return Shard(name=name, records=records, num_bytes=num_bytes, sha256=digest_of_file(path))


def _embedding_size(record: bytes, path: str, flag: str) -> int:
    tf = import_tensorflow()
    wanted = {URI_FEATURE: "bytes_list", EMBEDDING_FEATURE: "float_list", LABEL_FEATURE: "int64_list"}
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # The type of the exception depends on the implementation of protobuf.
        raise InputError(f"--{flag}: {path} holds records that are not a tf.Example.") from error
    for name, kind in wanted.items():
        # In a record without labels, the label feature may be missing or have no type.
        found = features[name].WhichOneof("kind") if name in features else None
        if found != kind and not (name == LABEL_FEATURE and found is None):
            there = ", ".join(sorted(features)[:8]) or "nothing"
            raise InputError(
                f"--{flag}: {path}: a record needs the features {', '.join(wanted)} (strings, floats, integers). "
                f"Received: {there}."
            )
    size = len(features[EMBEDDING_FEATURE].float_list.value)
    if not size:
        raise InputError(f"--{flag}: {path}: the embedding of its first record is empty.")
    return size
