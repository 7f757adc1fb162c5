"""The files that the trainer reads, on the disks of this machine or in a bucket.

TensorFlow's own `gs://` support is not used: it has its own retries, verifies no checksums, finds credentials in other
places than Google's client, and allows no other endpoint. Files that only TensorFlow can read are copied to a local
disk first.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from configs.activity import doing
from configs.arguments import require_utf8
from configs.errors import InputError
from configs.file_uris import path_argument
from preprocess.storage.scratch import scratch_folder
from preprocess.storage.uris import BUCKETS, is_in_bucket

if TYPE_CHECKING:
    from preprocess.storage.router import UriStorage

_GLOB_CHARACTERS = "*?["
# The words of `preprocess.storage.retry.as_os_error` and `GcsStorage.match`.
_MISSING_BUCKET = re.compile(r"No such bucket: ((?:gs|s3)://[^/]+)")
_THREADS = 8
_COPY_BYTES = 1 << 20


@functools.cache
def storage() -> UriStorage:
    """The storage of this process."""
    from preprocess.storage.router import UriStorage  # here: its imports would double the time of `--help`

    return UriStorage()


def supported_path(path: str, *, flag: str) -> str:
    """The path in the form that the trainer uses: `file://` URIs as local paths.

    Raises:
      InputError: the trainer cannot open this scheme, or the path names no bucket or is not UTF-8.
    """
    require_utf8(path, f"--{flag}")  # TensorFlow cannot open it.
    path = path_argument(path)
    scheme, mark, rest = path.partition("://")
    if is_in_bucket(path) and not rest.partition("/")[0]:
        raise InputError(f"--{flag}: must name a bucket: {scheme}://bucket/path. Received: {path!r}.")
    if mark and f"{scheme}://" not in BUCKETS and scheme.replace("+", "").replace(".", "").replace("-", "").isalnum():
        raise InputError(
            f"--{flag}: the trainer opens local paths, gs:// and s3://, not {scheme}://. Received: {path!r}. Copy it "
            "to one of them."
        )
    return path


def has_glob(path: str) -> bool:
    """Whether a path has a wildcard character."""
    return any(character in path for character in _GLOB_CHARACTERS)


def is_folder(path: str) -> bool:
    """Whether there is such a folder; in a bucket, whether there is any object below that name.

    Raises:
      OSError: the bucket cannot be listed.
    """
    if not is_in_bucket(path):
        return os.path.isdir(path)
    return not has_glob(path) and bool(names_below(path))


def cause_of(error: OSError) -> str:
    """The cause of an error, as the end of a message that names the file."""
    if match := _MISSING_BUCKET.match(str(error)):
        return f"there is no bucket {match[1]}. Make it, or correct the name"
    return error.strerror or str(error) or type(error).__name__


def is_missing_bucket(error: OSError) -> bool:
    """Whether the whole bucket is missing, and not only the file."""
    return _MISSING_BUCKET.match(str(error)) is not None


def names_below(folder: str) -> list[str]:
    """The files below a folder, at any depth, by their paths within it, sorted. Raises OSError."""
    folder = folder.rstrip("/")
    return [path.removeprefix(f"{folder}/") for path in storage().match(f"{glob.escape(folder)}/**")]


def _fetch(path: str, target: str) -> None:
    """Copies a file from a bucket to a local path, whole or not at all. Raises OSError."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with storage().open(path) as stream, storage().create(target) as copy:
        shutil.copyfileobj(stream, copy, _COPY_BYTES)


def fetch_folder(folder: str, target: str) -> None:
    """Copies all files below a folder of a bucket into a local folder, several at a time.

    Raises:
      InputError: an object has a name that would place its file outside of the local folder.
      OSError: an object cannot be read.
    """
    names = names_below(folder)
    for name in names:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise InputError(f"{folder}: the object {name!r} in it has no name that a file can have. Remove it.")
    with (
        doing(f"copying {folder}", total=len(names), unit="file") as copying,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        for _ in threads.map(lambda name: _fetch(posixpath.join(folder, name), os.path.join(target, name)), names):
            copying.advance()  # Iterating raises what a thread raised.


@contextlib.contextmanager
def local_folder(path: str) -> Iterator[str]:
    """Gives a local path for a folder. For a folder in a bucket, this is a temporary copy, removed at the end.

    A model of Inception v3 takes 90 MB of disk as a SavedModel, and about as much for each further format.

    Raises:
      InputError: see `fetch_folder`.
      OSError: a file in the folder cannot be read.
    """
    if not is_in_bucket(path):
        yield path
        return
    with scratch_folder() as scratch:
        fetch_folder(path, scratch)
        yield scratch
