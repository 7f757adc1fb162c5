"""Embeddings kept by content: an image that was embedded before, in whatever list, under whatever name, is not again.

An embedding is found again by the SHA-256 of the image file's bytes and by everything that made it: the backbone's
identity, the precision, and the versions of the libraries that decide its numbers (`preprocess.engines.libraries`).
On local disks and object stores alike an entry is one small file:

    FOLDER/<identity, 16 hex digits>/identity.json                      what the embeddings beside it were made with
    FOLDER/<identity, 16 hex digits>/<2 hex digits>/<62>.embedding      magic, identity, digest, floats, CRC-32C

Jobs may share a folder, at the same time too. Entries appear whole under their names, and whatever is wrong with one
(damaged, cut short, foreign, not finite) is a miss: the image is embedded again and the entry replaced. Whatever is
wrong with the storage costs time and nothing else, and of that little: storage that does not answer for ten seconds is
not asked until it does, and a job does not wait for it at its end. Nothing is ever deleted, and anyone may delete
anything at any time.
An embedding of 2048 floats takes 8,268 bytes; a crash may leave a file `*.partial`, which nothing reads.

Measured on a local disk (ext4), 2 cores, 2048 floats: 60,000 embeddings found a second in one thread, 12,000 or more in
32, and 250,000 misses a second; 4,500 to 10,000 kept a second, most of it the time that ext4 takes to make a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
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
from preprocess.machine.deadlines import start_thread
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.storage.base import Storage, TooLarge, read_file, write_file
from preprocess.storage.uris import has_scheme

_MAGIC = b"HUGSEMB1"
_DIGEST_BYTES = 32
_CRC = struct.Struct("<I")

# 8 MB of embeddings of 2048 floats.
_MAX_QUEUED = 1024
# A put takes an object store 50 to 100 ms: sixteen at once are 160 to 320 a second. A disk is kept busy by two.
_LOCAL_WRITERS = 2
_REMOTE_WRITERS = 16
# Storage that failed this often without an answer in between is not asked again: each try may take as long as its
# retries are allowed to.
_GIVE_UP_AFTER = 32
# How long a call may take before it counts as one that hangs, and how many may: a frozen disk holds both writers.
_DEADLINE_SEC = 10.0
_MAX_HANGING = 2
# How long a job waits at its end for embeddings that are still being written, if storage takes them at all.
_MAX_FLUSH_SEC = 60.0
# Faults of remote storage are tried again for as long: an embedding is made anew in less than what an image is read in.
RETRY_SEC = 5.0
# For the one file that is written and read before a job starts.
_CHECK_DEADLINE_SEC = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What became of a cache's calls so far.

    Attributes:
      hits: embeddings found.
      misses: embeddings not found, because they were never kept, are damaged, or storage failed.
      faults: calls of storage that failed, reading or writing.
      first_fault: what the first of these said, one line; None if there was none.
    """

    hits: int
    misses: int
    faults: int
    first_fault: str | None


class EmbeddingCache:
    """Embeddings by the SHA-256 of the image file's bytes; every method may be called from any thread.

    No fault of storage is raised; `counts` tells of them. A call of `find` may hang where storage does: who calls it is
    to have a deadline. Entries are written in the background by daemon threads, so
    those that nobody waited for with `flush` may be lost when the process ends.

    Args:
      folder: a local path or a URI; made when the first entry is written.
      storage: opens it.
      identity: the network whose embeddings are looked for.
      engine: what runs it: embeddings of another arithmetic, or that other versions of libraries made, are not found.
    """

    def __init__(self, folder: str, *, storage: Storage, identity: BackboneIdentity, engine: EngineInfo):
        self._storage = storage
        self._made_with = {
            "format": _MAGIC.decode(),
            "network": identity.network,
            "arithmetic": engine.arithmetic,
            "libraries": list(engine.libraries),
        }
        self._identity_digest = hashlib.sha256(json.dumps(self._made_with, sort_keys=True).encode()).digest()
        self._folder = f"{folder.rstrip('/')}/{self._identity_digest.hex()[:16]}"
        self._embedding_size = identity.embedding_size
        self._entry_bytes = len(_MAGIC) + 2 * _DIGEST_BYTES + 4 * identity.embedding_size + _CRC.size
        self._remote = has_scheme(folder)
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(_MAX_QUEUED)
        self._lock = threading.Lock()
        # All of these are changed under the lock only.
        self._started = False
        self._has_writers = True
        self._being_written: set[bytes] = set()
        self._tokens = itertools.count()
        self._under_way: dict[int, float] = {}  # calls of storage, and when they began
        self._hits = self._misses = self._faults = self._faults_in_a_row = 0
        self._first_fault: str | None = None

    def find(self, digest: bytes) -> np.ndarray | None:
        """Looks an embedding up.

        Args:
          digest: SHA-256 of the image file, 32 bytes.

        Returns:
          float32 [embedding_size], the caller's own; None if there is no sound entry or storage failed.

        Raises:
          ValueError: `digest` has another length.
        """
        path = self._path(digest)
        embedding = None
        if not self._given_up():
            try:
                with self._timed():
                    raw = self._storage.read(path, max_bytes=self._entry_bytes)
                embedding = self._decode(digest, raw)
            except (FileNotFoundError, TooLarge):
                self._answered()
            except Exception as error:  # The streams of cloud clients raise types of their own.
                self._failed(error)
            else:
                self._answered()
        with self._lock:
            if embedding is None:
                self._misses += 1
            else:
                self._hits += 1
        return embedding

    def keep(self, digest: bytes, embedding: np.ndarray) -> None:
        """Has an embedding written; waits only while 1024 others do, and not for storage that does not answer.

        One that is not finite or all zero is not kept, since `find` would not give it back.

        Args:
          digest: SHA-256 of the image file, 32 bytes.
          embedding: float32 [embedding_size]; may be changed afterwards.

        Raises:
          ValueError: `digest` has another length, or `embedding` another shape.
        """
        if len(digest) != _DIGEST_BYTES or embedding.shape != (self._embedding_size,):
            raise ValueError(
                f"a digest of {_DIGEST_BYTES} bytes and an embedding [{self._embedding_size}] are wanted. "
                f"Received: {len(digest)} bytes and {list(embedding.shape)}"
            )
        if not _is_sound(embedding) or self._given_up():
            return
        with self._lock:
            # Lists repeat images, and object stores slow down who writes one object again and again.
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
                write = functools.partial(self._write, digest, self._encode(digest, embedding))
                self._queue.put(write, timeout=_DEADLINE_SEC)

    def flush(self) -> None:
        """Waits until every embedding given to `keep` before is written or given up, or storage does not answer."""
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
        """Around a call of storage, so that one that hangs is noticed by others."""
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
        """What became of the calls so far."""
        with self._lock:
            return CacheCounts(hits=self._hits, misses=self._misses, faults=self._faults, first_fault=self._first_fault)

    def _path(self, digest: bytes) -> str:
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"a digest has {_DIGEST_BYTES} bytes. Received: {len(digest)}")
        name = digest.hex()
        return f"{self._folder}/{name[:2]}/{name[2:]}.embedding"

    def _encode(self, digest: bytes, embedding: np.ndarray) -> bytes:
        entry = b"".join((_MAGIC, self._identity_digest, digest, embedding.astype("<f4").tobytes()))
        return entry + _CRC.pack(google_crc32c.value(entry))

    def _decode(self, digest: bytes, raw: bytes) -> np.ndarray | None:
        """The embedding in an entry; None if it is not exactly what `_encode` makes of a sound embedding."""
        header = _MAGIC + self._identity_digest + digest
        if len(raw) != self._entry_bytes or not raw.startswith(header):
            return None
        if raw[-_CRC.size :] != _CRC.pack(google_crc32c.value(raw[: -_CRC.size])):
            return None
        embedding = np.frombuffer(raw, "<f4", self._embedding_size, len(header)).astype(np.float32)
        return embedding if _is_sound(embedding) else None

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
            missing = not self._storage.match(path)
        if missing:
            self._put(path, (json.dumps(self._made_with, indent=2) + "\n").encode())

    def _put(self, path: str, data: bytes) -> None:
        """Writes a file that appears whole, even if others write the same one at this moment."""
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
    """Finds out before a job starts whether a cache can be kept in a folder; makes the folder.

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
    return bool(np.isfinite(embedding).all() and embedding.any())


def _replace_local_file(path: str, data: bytes) -> None:
    """Writes a local file under a name of its own, then renames it.

    Not `LocalStorage.create`: two that create one path with it write into one file beside it, and it waits for the disk
    each time. Here what a power failure leaves of an entry is found out by its checksum.
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
