"""The photos behind the records, where they can still be read: for thumbnails and for checks."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence

from PIL import Image

from configs.errors import InputError
from preprocess.image import ImageError, decode_image
from preprocess.record_set import REPORT_NAME, sidecar_path
from preprocess.retrying import RetriesExhausted, RetryPolicy
from preprocess.rows import has_scheme, resolve_uri
from preprocess.uri_storage import UriStorage
from trainer.files import is_in_bucket, storage

# The name of a photo and the content of its file.
Photo = tuple[str, bytes]

_MAX_PHOTO_BYTES = 64 << 20
_JPEG_QUALITY = 82
# Photos only adorn the report: nobody waits two minutes for each while a bucket does not answer.
_RETRY = RetryPolicy(limit_sec=10)


def lists_of_sets(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The paths of the lists that record sets were made from, as far as the reports beside them tell."""
    lists: list[str] = []
    for prefix in prefixes:
        try:
            lists += [str(path) for path in json.loads(storage().read(sidecar_path(prefix, REPORT_NAME)))["input"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Made elsewhere, or by an earlier version: relative URIs are then relative to nothing.
    return tuple(dict.fromkeys(lists))


class PhotoFinder:
    """Finds the files that URIs of records name, on this machine or in a bucket."""

    def __init__(self, list_paths: Sequence[str] = ()):
        """Takes the lists that relative URIs may be relative to; else they are to the working directory."""
        self._list_paths = (*list_paths, "")
        self._bucket_storage: UriStorage | None = UriStorage(_RETRY)

    def read(self, uri: str) -> Photo | None:
        """The location and the content of the regular file that a URI names; None if it cannot be read."""
        for path in dict.fromkeys(resolve_uri(uri, list_path) for list_path in self._list_paths):
            data = self._read_object(path) if is_in_bucket(path) else _read_local(path)
            if data is not None:
                return path, data
        return None

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
            pixels = decode_image(photo[1])
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
