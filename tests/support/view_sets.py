"""Gives written record sets views: the feature in each record, and the field in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from preprocess.records.example import encode_example
from preprocess.records.record_set import MANIFEST_NAME, Manifest, sidecar_path
from preprocess.records.tfrecord import frame_record, split_frames
from preprocess.records.views import Views
from trainer.data.record_parser import RecordParser


def add_views(prefix: str, others: np.ndarray, **parameters: Any) -> str:
    """Writes the shards and the manifest of an uncompressed set again, with views: float32 [n, views - 1, size]."""
    path = sidecar_path(prefix, MANIFEST_NAME)
    with open(path, "rb") as stream:
        manifest = Manifest.from_bytes(stream.read(), where=path)
    parser = RecordParser(others.shape[2])
    row = 0
    shards = []
    for shard in manifest.shards:
        shard_path = os.path.join(os.path.dirname(prefix), shard.name)
        with open(shard_path, "rb") as stream:
            contents = stream.read()
        framed = []
        for data, spans in split_frames([contents]):
            records = parser.parse(data, spans)
            ends = np.cumsum(records.label_counts)
            for number in range(len(records)):
                digest = records.image_digests[number].tobytes()
                record = encode_example(
                    image_uri=records.uris[number],
                    embedding=records.embeddings[number],
                    label_ids=records.label_ids[ends[number] - records.label_counts[number] : ends[number]].tolist(),
                    image_sha256=digest * 2,  # Of a digest, the trainer reads the first half.
                    view_embeddings=others[row],
                )
                framed.append(frame_record(record))
                row += 1
        raw = b"".join(framed)
        with open(shard_path, "wb") as stream:
            stream.write(raw)
        shards.append(dataclasses.replace(shard, num_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest()))
    views = Views(**{"count": others.shape[1] + 1, "flip_left_right": True, "random_crop": 10.0, **parameters})
    with open(path, "wb") as stream:
        stream.write(dataclasses.replace(manifest, shards=tuple(shards), views=views).to_bytes())
    return prefix
