"""Gives written record sets views: the feature in each record, and the field in the manifest."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

from preprocess.records.record_set import MANIFEST_NAME, sidecar_path
from preprocess.records.tfrecord import frame_record, split_frames
from preprocess.records.wire_format import decode_only_field, encode_field


def with_views(record: bytes, others: np.ndarray) -> bytes:
    """A record with views 1, 2 ...: float32 [views - 1, embedding_size]."""
    floats = np.ascontiguousarray(others, "<f4").tobytes()
    feature = encode_field(2, encode_field(1, floats))
    entry = encode_field(1, encode_field(1, b"view_embeddings") + encode_field(2, feature))
    return encode_field(1, bytes(decode_only_field(memoryview(record), 1)) + entry)


def add_views(prefix: str, others: np.ndarray, **parameters: Any) -> str:
    """Writes the shards and the manifest of an uncompressed set again, with views: float32 [n, views - 1, size]."""
    path = sidecar_path(prefix, MANIFEST_NAME)
    with open(path, encoding="utf-8") as stream:
        manifest = json.load(stream)
    row = 0
    for shard in manifest["shards"]:
        shard_path = os.path.join(os.path.dirname(prefix), shard["name"])
        with open(shard_path, "rb") as stream:
            contents = stream.read()
        framed = []
        for data, spans in split_frames([contents]):
            for start, end in spans:
                framed.append(frame_record(with_views(data[start:end], others[row])))
                row += 1
        raw = b"".join(framed)
        with open(shard_path, "wb") as stream:
            stream.write(raw)
        shard |= {"num_bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    manifest["views"] = {
        "count": others.shape[1] + 1,
        "flip_left_right": True,
        "random_crop": 10.0,
        "random_scale": 0.0,
        "random_brightness": 0.0,
        **parameters,
    }
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream)
    return prefix
