"""Storage for local paths and `gs://` without Beam, for the trainer and for programs that post to the cloud."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from configs.errors import InputError
from configs.install_hint import install_hint
from preprocess.storage.base import LocalStorage, Storage
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.scratch import scratch_folder
from preprocess.storage.uris import has_scheme
from preprocess.storage.versioned_object import VersionedObject

_COPY_BYTES = 1 << 20


@functools.cache
def _require_client() -> None:
    try:
        import google.cloud.storage  # noqa: F401 (what is to be there)
    except ImportError as error:
        raise InputError(
            f"gs:// needs the package google-cloud-storage, which is not installed ({error}). {install_hint('train')}"
        ) from error


class UriStorage:
    """A `Storage` of local paths through the operating system and of `gs://` through Google's client.

    Operations raise InputError for other schemes, and for `gs://` if Google's client is not installed.

    Args:
      retry: the storage retries of each operation on remote files.
    """

    def __init__(self, retry: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008 (frozen)
        self._local = LocalStorage()
        self._retry = retry

    def _gcs(self) -> Storage:
        return GcsStorage(self._retry)

    def _of(self, path: str) -> Storage:
        if path.startswith("gs://"):
            _require_client()
            return self._gcs()
        if has_scheme(path):
            raise InputError(f"{path}: only local paths and gs:// can be opened here. Copy it to one of them.")
        return self._local

    def versioned(self, path: str) -> VersionedObject | None:
        """An object that is overwritten only if it has not changed; None if the storage does not support that."""
        of_path = self._of(path)
        return of_path.versioned(path) if isinstance(of_path, GcsStorage) else None

    def open(self, path: str) -> BinaryIO:
        return self._of(path).open(path)

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        return self._of(path).read(path, max_bytes=max_bytes)

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        return self._of(path).read_part(path, offset=offset, num_bytes=num_bytes)

    def create(
        self, path: str, *, keep_partial: bool = False, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        return self._of(path).create(path, keep_partial=keep_partial, durable=durable)

    def create_new(self, path: str, data: bytes) -> bool:
        return self._of(path).create_new(path, data)

    def match(self, pattern: str) -> list[str]:
        return self._of(pattern).match(pattern)

    def sizes(self, pattern: str) -> dict[str, int]:
        return self._of(pattern).sizes(pattern)

    def move(self, source: str, target: str) -> None:
        self._of(source).move(source, target)

    def delete_file(self, path: str) -> None:
        self._of(path).delete_file(path)

    def delete_tree(self, path: str) -> None:
        self._of(path).delete_tree(path)


@contextlib.contextmanager
def local_copy(path: str, storage: Storage) -> Iterator[str]:
    """Gives a local path of a file within the `with` block: its own path, or that of a temporary copy of an object.

    Args:
      path: a local path or gs://.
      storage: of the file.

    Raises:
      OSError: the file cannot be read.
    """
    if not path.startswith("gs://"):
        yield path
        return
    with scratch_folder() as folder:
        copy = os.path.join(folder, posixpath.basename(path))
        with storage.open(path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        yield copy
