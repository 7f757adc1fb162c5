"""The photos behind the records, where they can still be read: for thumbnails and for checks.

A record says where its photo lies, and whoever made the record has said so: what is read must be what the user meant.
The sets that the pipeline made are read like the lists that they were made from, wherever the photos lie. Of records
that were made elsewhere nothing is read, unless the user names the folders; then nothing outside of these is. What is
read is decoded in a process of its own, as in the pipeline.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from configs.errors import InputError, cause_in_one_line
from preprocess.images.decode import ImageError
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.retry import RetriesExhausted, RetryPolicy
from preprocess.storage.router import UriStorage
from preprocess.storage.uris import has_scheme, resolve_uri
from trainer.data.record_sets import RecordSet
from trainer.storage.files import is_in_bucket, storage

# The name of a photo and the content of its file.
Photo = tuple[str, bytes]

_MAX_PHOTO_BYTES = 64 << 20
_JPEG_QUALITY = 82
# Photos only adorn the report: nobody waits two minutes for each while a bucket does not answer.
_RETRY = RetryPolicy(limit_sec=10)
_DECODE_SEC = 10.0


def lists_of_sets(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The paths of the lists that record sets were made from, as far as the reports beside them tell."""
    lists: list[str] = []
    for prefix in prefixes:
        try:
            lists += [str(path) for path in json.loads(storage().read(sidecar_path(prefix, REPORT_NAME)))["input"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # Made elsewhere, or by an earlier version: relative URIs are then relative to nothing.
    return tuple(dict.fromkeys(lists))


def finder_of_sets(sets: Iterable[RecordSet], photo_dirs: Sequence[str]) -> PhotoFinder:
    """What finds the photos of some sets.

    Args:
      sets: of which photos are to be found.
      photo_dirs: as in the options.
    """
    sets = tuple(sets)
    nowhere = not photo_dirs and not all(record_set.verified for record_set in sets)
    lists = lists_of_sets(record_set.prefix for record_set in sets if record_set.verified)
    return PhotoFinder(lists, below=() if nowhere else photo_dirs or None)


def decode_photo(data: bytes, *, deadline_sec: float = _DECODE_SEC) -> np.ndarray:
    """`images.decode.decode_image` in a process of its own. Raises ImageError, also where no process starts."""
    try:
        return IsolatedDecoder(deadline_sec=deadline_sec)(data)
    except (RuntimeError, OSError) as error:
        raise ImageError("decoder_crashed", cause_in_one_line(error)) from error


class PhotoFinder:
    """Finds the files that URIs of records name, on this machine or in a bucket."""

    def __init__(self, list_paths: Sequence[str] = (), *, below: Sequence[str] | None = None):
        """Looks at nothing yet.

        Args:
          list_paths: lists that relative URIs may be relative to; else they are to the folders of `below`, or else to
            the working directory.
          below: the folders that a photo must lie in, local or gs://; None for anywhere.
        """
        self._below = below
        bases = [""] if below is None else [f"{folder.rstrip('/')}/" for folder in below]
        self._list_paths = (*list_paths, *bases)
        self._bucket_storage: UriStorage | None = UriStorage(_RETRY)

    def read(self, uri: str) -> Photo | None:
        """The location and the content of the regular file that a URI names; None if it cannot be read."""
        for path in dict.fromkeys(resolve_uri(uri, list_path) for list_path in self._list_paths):
            if not self._may_read(path):
                continue
            data = self._read_object(path) if is_in_bucket(path) else _read_local(path)
            if data is not None:
                return path, data
        return None

    def _may_read(self, path: str) -> bool:
        if self._below is None:
            return True
        if is_in_bucket(path):
            return any(path.startswith(f"{folder.rstrip('/')}/") for folder in self._below if is_in_bucket(folder))
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            return False
        folders = [os.path.realpath(folder) for folder in self._below if not is_in_bucket(folder)]
        return any(real.startswith(os.path.join(folder, "")) for folder in folders)

    def _read_object(self, path: str) -> bytes | None:
        if self._bucket_storage is None:
            return None
        try:
            return self._bucket_storage.read(path, max_bytes=_MAX_PHOTO_BYTES)
        except (RetriesExhausted, InputError) as error:
            print(f"warning: photos in buckets are left out of the report: {error}", file=sys.stderr)
            self._bucket_storage = None
        except (OSError, ValueError):  # It is not there, may not be read, or its name is none.
            pass
        return None

    def some(self, uris: Iterable[str], *, at_most: int, tries: int) -> list[Photo]:
        """Up to `at_most` photos among the first `tries` URIs."""
        found: list[Photo] = []
        for _, uri in zip(range(tries), uris, strict=False):
            photo = self.read(uri)
            if photo is not None:
                found.append(photo)
            if len(found) == at_most:
                break
        return found

    def thumbnail(self, uri: str, *, side: int) -> str | None:
        """A photo as the model saw it, a square, made small.

        Returns:
          A JPEG as a `data:` URI; None if the photo cannot be read here.
        """
        photo = self.read(uri)
        if photo is None:
            return None
        try:
            pixels = decode_photo(photo[1])
        except ImageError:
            return None
        encoded = io.BytesIO()
        Image.fromarray(pixels).resize((side, side)).save(encoded, "JPEG", quality=_JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _read_local(path: str) -> bytes | None:
    try:
        # Regular files only: a URI may name a device that never ends.
        if has_scheme(path) or not os.path.isfile(path) or os.path.getsize(path) > _MAX_PHOTO_BYTES:
            return None
        with open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError):  # A name that is too long, or one with a zero byte.
        return None
