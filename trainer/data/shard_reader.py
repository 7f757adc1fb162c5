"""Reads the shards of record sets in pieces, and checks them against the sets' manifests."""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from configs.counts import counted
from configs.errors import InputError
from preprocess.records.record_set import Shard
from preprocess.records.tfrecord import MalformedRecordError, decompressed, split_frames
from trainer.data.prefetch import prefetched
from trainer.data.record_parser import RecordParser, Records
from trainer.data.record_sets import RecordSet
from trainer.storage.files import cause_of, storage

_CHUNK_BYTES = 4 << 20
_OPENED_AHEAD = 4


def _contents(open_file: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with open_file() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _verified(chunks: Iterator[bytes], path: str, shard: Shard) -> Generator[bytes, None, None]:
    # A shard of another run can have the same name, size and number of records, and a valid checksum for each record.
    # Only the digest shows that its embeddings are different.
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != shard.sha256:
        raise InputError(
            f"{path}: its contents are not what its set's manifest says (SHA-256 differs): the file was "
            "damaged or replaced. Run the pipeline again with --verify."
        )


def read_shards(parts: Sequence[tuple[RecordSet, Shard]], *, all_views: bool = False) -> Iterator[Iterator[Records]]:
    """Reads some shards one after the other, each in order and some megabytes at a time.

    The next shards are opened meanwhile. From a bucket they are fetched whole: up to 32 MB of each are held in memory,
    more than that on disk.

    Args:
      parts: shards, each with the set that it belongs to.
      all_views: whether to read all views of each image; else only view 0, of the undistorted image, is read.

    Yields:
      For each shard an iterator over its records, with at least one record at a time. Exhaust it before you ask for the
      next shard. Only at its end is it certain that the shard is what its manifest says. The iterator raises InputError
      if the shard is missing, damaged or not what its set's manifest says, if a label id is not in the dictionary, or
      if a number is not finite.
    """
    threads = ThreadPoolExecutor(_OPENED_AHEAD)
    opened: collections.deque[Future[BinaryIO]] = collections.deque()
    paths = (record_set.shard_path(shard.name) for record_set, shard in parts)
    try:
        for record_set, shard in parts:
            for path in itertools.islice(paths, _OPENED_AHEAD + 1 - len(opened)):
                opened.append(threads.submit(storage().open, path))
            yield _read_shard(record_set, shard, opened.popleft().result, all_views)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for future in opened:
            future.add_done_callback(_close)


def _close(opened: Future[BinaryIO]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()


def _read_shard(
    record_set: RecordSet, shard: Shard, open_file: Callable[[], BinaryIO], all_views: bool
) -> Iterator[Records]:
    path = record_set.shard_path(shard.name)
    manifest = record_set.manifest
    verified = _verified(_contents(open_file), path, shard)
    if shard.num_bytes > _CHUNK_BYTES:
        # Reading and hashing release the interpreter's lock, so they run at the same time as the parsing.
        verified = prefetched(verified, depth=2)
    contents = decompressed(verified) if manifest.compression == "gzip" else verified
    parser = RecordParser(manifest.backbone.embedding_size, stored_views=record_set.num_views, all_views=all_views)
    count = 0
    try:
        for data, spans in split_frames(contents):
            records = parser.parse(data, spans)
            _check_values(records, num_labels=len(manifest.labels))
            count += len(records)
            if count > shard.records:
                raise _FaultError(f"holds more than the {counted(shard.records, 'record')} of its manifest.")
            yield records
        if count != shard.records:
            raise _FaultError(
                f"holds {counted(count, 'record')}, its set's manifest says {shard.records}. Run the pipeline again "
                "with --verify."
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({cause_of(error)}).") from error
    except (_FaultError, MalformedRecordError) as error:
        for _ in verified:  # Read to the end: if the digest differs, that is the cause, and this raises it instead.
            pass
        words = str(error)
        if isinstance(error, MalformedRecordError):
            words = f"cannot be read as a shard of examples ({words}). Run the pipeline again with --verify."
        raise InputError(f"{path}: {words}") from error
    finally:
        verified.close()


class _FaultError(Exception):
    """Describes a fault in records that could be read. The words end a sentence that begins with the path."""


def _check_values(records: Records, *, num_labels: int) -> None:
    # A finite sum shows in one pass that all terms are finite. If the sum is not finite, it may have overflowed, and
    # each number is checked.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = ~np.isfinite(records.views.sum(axis=(1, 2)))
    if suspect.any():
        finite = np.isfinite(records.views).all(axis=(1, 2))
        if not finite.all():
            uri = records.uris[int(np.argmin(finite))]
            raise _FaultError(f"the embedding of {uri} holds a number that is not finite.")
    ids = records.label_ids
    if ids.size and not 0 <= ids.min() <= ids.max() < num_labels:
        bad = ids.max() if ids.max() >= num_labels else ids.min()
        raise _FaultError(f"label id {bad}, but its set's dictionary has {counted(num_labels, 'label')}.")
