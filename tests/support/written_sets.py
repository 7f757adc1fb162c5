"""Writes whole record sets from arrays, the way the pipeline leaves them."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import encode_example
from preprocess.records.record_set import MANIFEST_NAME, Compression, Manifest, Shard, shard_name, sidecar_path
from preprocess.records.tfrecord import frame_record

COLOURS = ("red", "green", "blue")
MEAN_COLOUR = BackboneIdentity(
    architecture="inception_v3",
    weights="random",
    seed=0,
    weights_digest="sha256:" + "0" * 64,
    embedding_size=3,
    image_definition=IMAGE_DEFINITION,
)


def _bytes_of(content: object) -> bytes:
    return content if isinstance(content, bytes) else repr(content).encode()


def write_record_set(
    prefix: str,
    embeddings: np.ndarray,
    label_ids: Sequence[Sequence[int]],
    *,
    labels: Sequence[str] = COLOURS,
    identity: BackboneIdentity = MEAN_COLOUR,
    num_shards: int = 2,
    compression: Compression = "none",
    contents: Sequence[object] | None = None,
    uris: Sequence[str] | None = None,
    image_hashes: np.ndarray | None = None,
) -> str:
    """Writes a set and returns its prefix.

    Args:
      prefix: for example "out/train"; a local path.
      embeddings: float32, shape [n, size]; the size is that of `identity`.
      label_ids: the label ids of each record; may be empty.
      labels: the dictionary.
      identity: the network that the records come from.
      num_shards: how many shards to write.
      compression: of the shards.
      contents: the image files, or what stands for them: equal ones have equal digests, and None has no digest.
      uris: of the images; None for numbered ones.
      image_hashes: uint8, shape [n, 32], the perceptual hashes; None for records without them.
    """
    contents = [(prefix, row) for row in range(len(embeddings))] if contents is None else contents
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    shards = []
    for index, rows in enumerate(np.array_split(np.arange(len(embeddings)), num_shards)):
        name = shard_name(os.path.basename(prefix), index, num_shards, compression)
        framed = b"".join(
            frame_record(
                encode_example(
                    image_uri=f"{os.path.basename(prefix)}/{row}.jpg" if uris is None else uris[row],
                    embedding=embeddings[row],
                    label_ids=label_ids[row],
                    image_sha256=b"" if contents[row] is None else hashlib.sha256(_bytes_of(contents[row])).digest(),
                    image_hash=b"" if image_hashes is None else image_hashes[row].tobytes(),
                )
            )
            for row in rows.tolist()
        )
        raw = gzip.compress(framed, mtime=0) if compression == "gzip" else framed
        with open(os.path.join(os.path.dirname(prefix), name), "wb") as stream:
            stream.write(raw)
        shards.append(Shard(name=name, records=len(rows), num_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest()))
    manifest = Manifest(
        backbone=identity,
        labels=tuple(labels),
        compression=compression,
        records=len(embeddings),
        shards=tuple(shards),
    )
    path = sidecar_path(prefix, MANIFEST_NAME)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(manifest.to_bytes())
    return prefix
