"""The photos behind the records, where they can still be read as local files: for thumbnails and for checks."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf
from PIL import Image

from preprocess.image import ImageError, decode_image
from preprocess.record_set import REPORT_NAME, sidecar_path
from preprocess.rows import has_scheme, resolve_uri

_MAX_PHOTO_BYTES = 64 << 20
_JPEG_QUALITY = 82


def lists_of_sets(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The paths of the lists that record sets were made from, as far as the reports beside them tell."""
    lists: list[str] = []
    for prefix in prefixes:
        try:
            with tf.io.gfile.GFile(sidecar_path(prefix, REPORT_NAME), "rb") as stream:
                lists += [str(path) for path in json.loads(stream.read())["input"]]
        except (tf.errors.OpError, ValueError, KeyError, TypeError):
            continue  # Made elsewhere, or by an earlier version: relative URIs are then relative to nothing.
    return tuple(dict.fromkeys(lists))


class PhotoFinder:
    """Finds the local files that URIs of records name."""

    def __init__(self, list_paths: Sequence[str] = ()):
        """Takes the lists that relative URIs may be relative to; else they are to the working directory."""
        self._list_paths = (*list_paths, "")

    def path(self, uri: str) -> str | None:
        """The regular file that a URI names, or None if there is none on this machine."""
        for list_path in self._list_paths:
            path = resolve_uri(uri, list_path)
            try:
                # Regular files only: a URI may name a device that never ends.
                if not has_scheme(path) and os.path.isfile(path) and os.path.getsize(path) <= _MAX_PHOTO_BYTES:
                    return path
            except (OSError, ValueError):  # A name that is too long, or one with a zero byte.
                continue
        return None

    def some(self, uris: Iterable[str], *, at_most: int, tries: int) -> list[str]:
        """Paths of up to `at_most` photos among the first `tries` URIs."""
        found: list[str] = []
        for _, uri in zip(range(tries), uris, strict=False):
            path = self.path(uri)
            if path is not None:
                found.append(path)
            if len(found) == at_most:
                break
        return found

    def thumbnail(self, uri: str, *, side: int) -> str | None:
        """A photo as the model saw it, a square, made small.

        Returns:
          A JPEG as a `data:` URI; None if the photo cannot be read here.
        """
        path = self.path(uri)
        if path is None:
            return None
        try:
            with open(path, "rb") as stream:
                pixels = decode_image(stream.read())
        except (OSError, ImageError):
            return None
        encoded = io.BytesIO()
        Image.fromarray(pixels).resize((side, side)).save(encoded, "JPEG", quality=_JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
