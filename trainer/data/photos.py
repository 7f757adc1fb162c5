"""The photos that the records were made from, for thumbnails and for checks, where they can still be read.

A record names the location of its photo. Whoever made the record chose that location, so the trainer reads only what
the user meant. For sets that the pipeline made, photos are read from wherever the lists say. For records that were made
elsewhere, nothing is read unless the user names folders; then only files in these folders are read. Photos are decoded
in a separate process, as in the pipeline.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from configs.errors import InputError, cause_in_one_line
from preprocess.images.decode import IMAGE_SIZE, ImageError
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.lists.tar_members import TarMember, parse_member
from preprocess.storage.retry import RetriesExhausted, RetryPolicy
from preprocess.storage.router import UriStorage
from preprocess.storage.uris import has_scheme, resolve_uri
from trainer.data.record_sets import RecordSet
from trainer.storage.files import is_in_bucket


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture of a photo.

    Attributes:
      picture: a JPEG as a `data:` URI.
      link: the address of the photo itself.
    """

    picture: str
    link: str


# A photo: its name and the content of its file.
Photo = tuple[str, bytes]

_MAX_PHOTO_BYTES = 64 << 20
_JPEG_QUALITY = 82
# The report is useful without photos, so the time limits are short: a bucket that does not answer must not delay it.
_RETRY = RetryPolicy(limit_sec=10)
_DECODE_SEC = 10.0


def lists_of_sets(sets: Iterable[RecordSet]) -> tuple[str, ...]:
    """The paths of the lists that record sets were made from, if the reports of the sets name them."""
    lists: list[str] = []
    for record_set in sets:
        try:
            lists += [str(path) for path in record_set.report["input"]]
        except (KeyError, TypeError):
            continue  # The set was made elsewhere or by an earlier version, so its relative URIs cannot be resolved.
    return tuple(dict.fromkeys(lists))


def finder_of_sets(
    sets: Iterable[RecordSet], photo_dirs: Sequence[str], *, asks_dead_buckets: bool = False
) -> PhotoFinder:
    """Makes the `PhotoFinder` for some sets.

    Args:
      sets: the sets whose photos are needed.
      photo_dirs: as in the options.
      asks_dead_buckets: see `PhotoFinder`.
    """
    sets = tuple(sets)
    nowhere = not photo_dirs and not all(record_set.verified for record_set in sets)
    lists = lists_of_sets(record_set for record_set in sets if record_set.verified)
    below = () if nowhere else photo_dirs or None
    return PhotoFinder(lists, below=below, asks_dead_buckets=asks_dead_buckets)


def decode_photo(data: bytes, *, deadline_sec: float = _DECODE_SEC, size: int = IMAGE_SIZE) -> np.ndarray:
    """Runs `images.decode.decode_image` in a separate process. Raises ImageError, also if no process can start."""
    try:
        return IsolatedDecoder(deadline_sec=deadline_sec, size=size)(data)
    except (RuntimeError, OSError) as error:
        raise ImageError("decoder_crashed", cause_in_one_line(error)) from error


class PhotoFinder:
    """Finds the files that URIs of records name, on this machine or in a bucket."""

    def __init__(
        self, list_paths: Sequence[str] = (), *, below: Sequence[str] | None = None, asks_dead_buckets: bool = False
    ):
        """Reads nothing yet.

        Args:
          list_paths: lists; relative URIs are relative to their folders. Without lists, relative URIs are relative to
            the folders of `below`, and without these to the working directory.
          below: the folders that a photo must lie in, local or gs://; None allows every folder.
          asks_dead_buckets: whether buckets are asked again after one did not answer. A report must not wait for each
            photo; a server goes on when the bucket does.
        """
        self._below = below
        # A relative path was relative to the folder in which the pipeline ran, which may be another one.
        self._sure_lists = tuple(path for path in list_paths if _is_absolute(path) or _is_there(path))
        bases = [""] if below is None else [f"{folder.rstrip('/')}/" for folder in below]
        self._list_paths = (*list_paths, *bases)
        self._bucket_storage: UriStorage | None = UriStorage(_RETRY)
        self._asks_dead_buckets = asks_dead_buckets

    def read(self, uri: str, digest: str | None = None) -> Photo | None:
        """The location and the content of the photo that a URI names; None if it is no regular file or unreadable.

        Args:
          uri: as the record has it. Lists in different folders may name different photos by the same relative URI.
          digest: the beginning of the SHA-256 of the file, in hexadecimal. Files with another one are not taken.
        """
        for path in dict.fromkeys(resolve_uri(uri, list_path) for list_path in self._list_paths):
            member = None if os.path.lexists(path) else parse_member(path)
            if not self._may_read(path if member is None else member.archive):
                continue
            if member is not None:
                data = self._read_member(member)
            else:
                data = self._read_object(path) if is_in_bucket(path) else _read_local(path)
            if data is not None and (digest is None or hashlib.sha256(data).hexdigest().startswith(digest)):
                return path, data
        return None

    def location(self, uri: str) -> str:
        """The location of the photo that a URI names, without reading it: an absolute path, or a URI with a scheme.

        Empty if it is not known: the set does not name its list, or its lists lie in several folders and not exactly
        one of these has the photo.
        """
        if _is_absolute(uri):
            return resolve_uri(uri, "")
        places = dict.fromkeys(resolve_uri(uri, list_path) for list_path in self._sure_lists or self._list_paths)
        if not self._sure_lists or len(places) > 1:
            places = dict.fromkeys(path for path in places if not has_scheme(path) and _is_there(path))
        if len(places) != 1:
            return ""
        (path,) = places
        return path if has_scheme(path) else os.path.abspath(path)

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

    def _read_member(self, member: TarMember) -> bytes | None:
        archive = member.archive
        if member.num_bytes > _MAX_PHOTO_BYTES or not (is_in_bucket(archive) or os.path.isfile(archive)):
            return None
        return self._ask(lambda storage: storage.read_part(archive, offset=member.offset, num_bytes=member.num_bytes))

    def _read_object(self, path: str) -> bytes | None:
        return self._ask(lambda storage: storage.read(path, max_bytes=_MAX_PHOTO_BYTES))

    def _ask(self, read: Callable[[UriStorage], bytes]) -> bytes | None:
        if self._bucket_storage is None:
            return None
        try:
            return read(self._bucket_storage)
        except (RetriesExhausted, InputError) as error:
            if self._asks_dead_buckets:
                return None
            print(f"warning: photos in buckets are left out of the report: {error}", file=sys.stderr)
            self._bucket_storage = None
        except (OSError, ValueError):  # The file is missing, may not be read, or its name is invalid.
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

    def thumbnail(self, uri: str, digest: str | None = None, *, side: int) -> Thumbnail | None:
        """A small version of the square image that the model saw; None if the photo cannot be read here. See `read`."""
        photo = self.read(uri, digest)
        if photo is None:
            return None
        try:
            pixels = decode_photo(photo[1])
        except ImageError:
            return None
        encoded = base64.b64encode(encode_jpeg(pixels, side=side)).decode()
        return Thumbnail(picture=f"data:image/jpeg;base64,{encoded}", link=link_to(photo[0]))


def encode_jpeg(pixels: np.ndarray, *, side: int) -> bytes:
    """A JPEG of a square picture, uint8 [size, size, 3], made `side` pixels wide."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def _is_absolute(location: str) -> bool:
    return has_scheme(location) or location.startswith("/")


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a name that holds a zero byte
        return False


def link_to(location: str) -> str:
    """The address at which a browser opens a photo. For a bucket this needs the rights of the person who looks."""
    if is_in_bucket(location):
        return "https://storage.cloud.google.com/" + urllib.parse.quote(location.removeprefix("gs://"))
    return "file://" + urllib.parse.quote(os.path.abspath(location), errors="surrogateescape")


def _read_local(path: str) -> bytes | None:
    try:
        # Only regular files are read: a URI may name a device whose content never ends.
        if has_scheme(path) or not os.path.isfile(path) or os.path.getsize(path) > _MAX_PHOTO_BYTES:
            return None
        with open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError):  # The name may also be too long or hold a zero byte.
        return None
