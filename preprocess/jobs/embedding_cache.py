"""The embedding cache: an image file is embedded once, even if it is in several lists or has several names.

The key of an embedding is the SHA-256 of the image file's bytes together with everything that decides its numbers: the
backbone's identity, the precision, the versions of libraries (`preprocess.engines.libraries`), and the views of the
image, if it has several; then an entry holds the embeddings of all views, one after the other. Beside the embedding an
entry holds the perceptual hash of the image, which entries of earlier versions do not have. An entry is one small file,
on local disks and in object stores:

    FOLDER/<identity, 16 hex digits>/identity.json                      what the embeddings beside it were made with
    FOLDER/<identity, 16 hex digits>/<2 hex digits>/<62>.embedding      magic, identity, digest[, hash], floats, CRC-32C

Several jobs may use one folder at the same time. An entry appears complete under its name. A bad entry (damaged,
truncated, foreign, not finite) counts as a miss: the image is embedded again, and the entry is replaced. Faults of
storage cost only a little time: if storage does not answer for ten seconds, the cache does not ask it until it answers,
and a job does not wait for it at its end. The cache deletes nothing, and users may delete any of its files at any time.
An embedding of 2048 floats takes 8,300 bytes. A crash may leave a file `*.partial`, which nothing reads.

Measured on a local disk (ext4), 2 cores, 2048 floats, for each second: 60,000 hits in one thread, 12,000 or more in 32
threads, 250,000 misses, and 4,500 to 10,000 writes; ext4 needs most of that time to create the files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import queue
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np

from configs.errors import InputError
from preprocess.engines.base import EngineInfo
from preprocess.images.loader import FoundEmbedding
from preprocess.machine.deadlines import start_thread
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import HASH_BYTES
from preprocess.records.views import Views
from preprocess.storage.base import Storage, TooLarge, is_file, read_file, write_file
from preprocess.storage.uris import has_scheme

_MAGIC = b"HUGSEMB1"
_MAGIC_WITH_HASH = b"HUGSEMB2"
_DIGEST_BYTES = 32
_CRC = struct.Struct("<I")

# 8 MB of embeddings of 2048 floats. Of several views, fewer.
_MAX_QUEUED = 1024
# An object store takes 50 to 100 ms for a write: sixteen threads write 160 to 320 a second. Two keep a disk busy.
_LOCAL_WRITERS = 2
_REMOTE_WRITERS = 16
# After this many faults in a row, storage is not asked again, because each call may take as long as the storage
# retries.
_GIVE_UP_AFTER = 32
# A call that takes longer counts as hanging. Two calls may hang, because a frozen disk blocks both writers.
_DEADLINE_SEC = 10.0
_MAX_HANGING = 2
# At its end a job waits at most this long for embeddings that are still being written.
_MAX_FLUSH_SEC = 60.0
# The limit of storage retries for the cache. It is short, because an embedding can be computed again quickly.
RETRY_SEC = 5.0
# The limit for the one file that is written and read before a job starts.
_CHECK_DEADLINE_SEC = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """The numbers of hits, misses and faults of a cache so far.

    Attributes:
      hits: embeddings that were found.
      misses: embeddings that were not found: there is no entry, it is damaged, or storage failed.
      faults: calls of storage that failed, for reading or writing.
      first_fault: the message of the first fault in one line; None if there was none.
    """

    hits: int
    misses: int
    faults: int
    first_fault: str | None


class EmbeddingCache:
    """Embeddings by the SHA-256 of the image file's bytes. Every method may be called from any thread.

    Faults of storage are not raised; `counts` reports them. A call of `find` hangs if storage hangs, so the caller
    needs a deadline. Daemon threads write the entries in the background. Entries may be lost at the end of the process
    if nobody called `flush`.

    Args:
      folder: a local path or a URI; it is created with the first entry.
      storage: the storage of the folder.
      identity: the network whose embeddings are looked up.
      engine: the engine that runs it; embeddings of another arithmetic or of other versions of libraries are not found.
      views: the views of each image; embeddings of other views are not found. None for one view.
    """

    def __init__(
        self,
        folder: str,
        *,
        storage: Storage,
        identity: BackboneIdentity,
        engine: EngineInfo,
        views: Views | None = None,
    ):
        self._storage = storage
        self._made_with = {
            "format": _MAGIC.decode(),
            "network": identity.network,
            "arithmetic": engine.arithmetic,
            "libraries": list(engine.libraries),
            # Not a part of it for one view, so that embeddings of earlier versions are found.
            **({} if views is None else {"views": views.to_json()}),
        }
        self._identity_digest = hashlib.sha256(json.dumps(self._made_with, sort_keys=True).encode()).digest()
        self._folder = f"{folder.rstrip('/')}/{self._identity_digest.hex()[:16]}"
        size = identity.embedding_size
        self._shape: tuple[int, ...] = (size,) if views is None else (views.count, size)
        self._entry_bytes = len(_MAGIC) + 2 * _DIGEST_BYTES + 4 * math.prod(self._shape) + _CRC.size
        self._remote = has_scheme(folder)
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(_MAX_QUEUED * size // math.prod(self._shape))
        self._lock = threading.Lock()
        # All of these are changed under the lock only.
        self._started = False
        self._has_writers = True
        self._being_written: set[bytes] = set()
        self._tokens = itertools.count()
        self._under_way: dict[int, float] = {}  # running calls of storage, with their start times
        self._hits = self._misses = self._faults = self._faults_in_a_row = 0
        self._first_fault: str | None = None

    def find(self, digest: bytes) -> FoundEmbedding | None:
        """Looks an embedding up.

        Args:
          digest: SHA-256 of the image file, 32 bytes.

        Returns:
          The embedding, float32 [embedding_size], of several views [views, embedding_size], a copy for the caller, with
          the hash if the entry has it; None if there is no valid entry or storage failed.

        Raises:
          ValueError: `digest` has another length.
        """
        path = self._path(digest)
        found = None
        if not self._given_up():
            try:
                with self._timed():
                    raw = self._storage.read(path, max_bytes=self._entry_bytes + HASH_BYTES)
                found = self._decode(digest, raw)
            except (FileNotFoundError, TooLarge):
                self._answered()
            except Exception as error:  # Cloud clients raise exceptions of their own types.
                self._failed(error)
            else:
                self._answered()
        with self._lock:
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
        return found

    def keep(self, digest: bytes, embedding: np.ndarray, image_hash: bytes = b"") -> None:
        """Queues an embedding to be written. It waits only if 1024 others are queued, and at most ten seconds.

        An embedding that is not finite or all zero is not kept, since `find` would not return it.

        Args:
          digest: SHA-256 of the image file, 32 bytes.
          embedding: float32 [embedding_size], of several views [views, embedding_size]; may be changed afterwards.
          image_hash: the perceptual hash of the image, 32 bytes; empty if it is not known.

        Raises:
          ValueError: `digest` or `image_hash` has another length, or `embedding` another shape.
        """
        if len(digest) != _DIGEST_BYTES or embedding.shape != self._shape or len(image_hash) not in (0, HASH_BYTES):
            raise ValueError(
                f"a digest of {_DIGEST_BYTES} bytes, an embedding {list(self._shape)} and a hash of {HASH_BYTES} bytes "
                f"or 0 are wanted. Received: {len(digest)} bytes, {list(embedding.shape)} and {len(image_hash)} bytes"
            )
        if not _is_sound(embedding) or self._given_up():
            return
        with self._lock:
            # Lists repeat images, and object stores slow down a client that writes the same object repeatedly.
            if digest in self._being_written:
                return
            self._being_written.add(digest)
            start, self._started = not self._started, True
        if start:
            writers = _REMOTE_WRITERS if self._remote else _LOCAL_WRITERS
            started = [start_thread(self._write_queued, "embedding-cache") for _ in range(writers)]
            self._has_writers = any(started)
            if self._has_writers:
                self._queue.put(self._describe)
            else:
                self._failed(RuntimeError("no thread can be started that writes"))
        if self._has_writers:
            with contextlib.suppress(queue.Full):
                write = functools.partial(self._write, digest, self._encode(digest, embedding, image_hash))
                self._queue.put(write, timeout=_DEADLINE_SEC)

    def flush(self) -> None:
        """Waits until all embeddings given to `keep` are written or have failed, or until storage does not answer."""
        give_up_at = time.monotonic() + _MAX_FLUSH_SEC
        done = self._queue.all_tasks_done
        with done:
            left = self._queue.unfinished_tasks
            while left and not self._hangs() and time.monotonic() < give_up_at:
                done.wait(_DEADLINE_SEC)
                left_before, left = left, self._queue.unfinished_tasks
                if left == left_before:
                    break
        if left:
            self._failed(TimeoutError(f"storage does not answer, {left} embeddings may not have been kept"))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Notes that a call of storage runs, so that other threads notice if it hangs."""
        with self._lock:
            token = next(self._tokens)
            self._under_way[token] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[token]

    def _hangs(self) -> bool:
        """Whether storage does not answer at this moment."""
        with self._lock:
            # In the order in which they began.
            oldest = list(itertools.islice(self._under_way.values(), _MAX_HANGING))
            return len(oldest) == _MAX_HANGING and time.monotonic() - oldest[-1] > _DEADLINE_SEC

    def counts(self) -> CacheCounts:
        """The numbers of hits, misses and faults so far."""
        with self._lock:
            return CacheCounts(hits=self._hits, misses=self._misses, faults=self._faults, first_fault=self._first_fault)

    def _path(self, digest: bytes) -> str:
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"a digest has {_DIGEST_BYTES} bytes. Received: {len(digest)}")
        name = digest.hex()
        return f"{self._folder}/{name[:2]}/{name[2:]}.embedding"

    def _encode(self, digest: bytes, embedding: np.ndarray, image_hash: bytes) -> bytes:
        magic = _MAGIC_WITH_HASH if image_hash else _MAGIC
        entry = b"".join((magic, self._identity_digest, digest, image_hash, embedding.astype("<f4").tobytes()))
        return entry + _CRC.pack(google_crc32c.value(entry))

    def _decode(self, digest: bytes, raw: bytes) -> FoundEmbedding | None:
        """What is in an entry; None if the entry is not what `_encode` gives for a valid embedding."""
        hash_bytes = HASH_BYTES if raw.startswith(_MAGIC_WITH_HASH) else 0
        header = (_MAGIC_WITH_HASH if hash_bytes else _MAGIC) + self._identity_digest + digest
        if len(raw) != self._entry_bytes + hash_bytes or not raw.startswith(header):
            return None
        if raw[-_CRC.size :] != _CRC.pack(google_crc32c.value(raw[: -_CRC.size])):
            return None
        first_float = len(header) + hash_bytes
        floats = np.frombuffer(raw, "<f4", math.prod(self._shape), first_float).astype(np.float32)
        embedding = floats.reshape(self._shape)
        return FoundEmbedding(embedding, raw[len(header) : first_float]) if _is_sound(embedding) else None

    def _write_queued(self) -> None:
        while True:
            write = self._queue.get()
            try:
                write()
            except Exception as error:
                self._failed(error)
            finally:
                self._queue.task_done()

    def _write(self, digest: bytes, entry: bytes) -> None:
        try:
            if not self._given_up():
                self._put(self._path(digest), entry)
                self._answered()
        finally:
            with self._lock:
                self._being_written.discard(digest)

    def _describe(self) -> None:
        path = f"{self._folder}/identity.json"
        with self._timed():
            missing = not is_file(self._storage, path)
        if missing:
            self._put(path, (json.dumps(self._made_with, indent=2) + "\n").encode())

    def _put(self, path: str, data: bytes) -> None:
        """Writes a file that appears complete, even if others write the same file at this moment."""
        with self._timed():
            if self._remote:
                write_file(self._storage, path, data)
            else:
                _replace_local_file(path, data)

    def _given_up(self) -> bool:
        if self._hangs():
            with self._lock:
                self._first_fault = self._first_fault or f"storage does not answer for {_DEADLINE_SEC:g} s"
            return True
        with self._lock:
            return self._faults_in_a_row >= _GIVE_UP_AFTER

    def _answered(self) -> None:
        with self._lock:
            self._faults_in_a_row = 0

    def _failed(self, error: Exception) -> None:
        message = " ".join(str(error).split()) or type(error).__name__
        with self._lock:
            self._faults += 1
            self._faults_in_a_row += 1
            self._first_fault = self._first_fault or message


def check(folder: str, storage: Storage) -> None:
    """Checks before a job starts that a cache can be kept in a folder, and creates the folder.

    Raises:
      InputError: a file cannot be written to the folder, read back and deleted, or that takes longer than a minute.
    """
    outcome: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def try_it() -> None:
        path = f"{folder.rstrip('/')}/check-{uuid.uuid4().hex}"
        try:
            write_file(storage, path, _MAGIC)
            found = read_file(storage, path)
            storage.delete_file(path)
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(found)

    try:
        if not start_thread(try_it, "embedding-cache-check"):
            raise OSError("no thread can be started")
        try:
            found = outcome.get(timeout=_CHECK_DEADLINE_SEC)
        except queue.Empty:
            raise TimeoutError(f"it does not answer within {_CHECK_DEADLINE_SEC:g} s") from None
        if isinstance(found, BaseException):
            raise found
    except OSError as error:
        cause = " ".join((error.strerror or str(error)).split())
        raise InputError(
            f"embedding_cache: cannot write to the folder {folder!r} ({cause}). "
            "Give a folder or bucket that you may write to, or run without a cache."
        ) from error
    if found != _MAGIC:
        raise InputError(
            f"embedding_cache: what is written to the folder {folder!r} does not come back from it. "
            "Give another folder, or run without a cache."
        )


def _is_sound(embedding: np.ndarray) -> bool:
    return bool(np.isfinite(embedding).all() and embedding.any(axis=-1).all())


def _replace_local_file(path: str, data: bytes) -> None:
    """Writes a local file under a unique name, then renames it.

    It does not use `LocalStorage.create`, because two calls of it for one path write into the same partial file, and
    because it waits for the disk each time. A checksum detects an entry that a power cut has damaged.
    """
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        try:
            stream = open(partial, "wb")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            stream = open(partial, "wb")  # noqa: SIM115
        with stream:
            stream.write(data)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
