"""Reads and decodes the photos that somebody names ahead of the network, and reports those that cannot be read."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence

from configs.counts import counted
from configs.errors import InputError
from configs.file_uris import local_path_of
from preprocess.images.decode import encode_png
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader, LoadedImage
from preprocess.images.read import read_image_bytes
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.uris import resolve_uri, shown
from trainer.storage.files import cause_of, is_missing_bucket, storage

# Photos that are read and decoded ahead: 0.27 MB each.
_MAX_AHEAD = 64
# A read that takes longer is tried again in another thread. Storage retries come on top.
_READ_DEADLINE_SEC = 60.0
# So many photos in a row that the machine could not read: its storage is gone, and waiting for each of the others is
# of no use.
_MAX_FAULTS = 8


def read_photo(location: str) -> bytes:
    """The bytes of a photo. Raises RowFailure, or what `read_image_bytes` raises."""

    def read_remote(uri: str, *, max_bytes: int | None = None) -> bytes:
        try:
            return storage().read(uri, max_bytes=max_bytes)
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise RowFailure("read", "not_found", f"{uri}: {cause_of(error)}") from error
            raise

    return read_image_bytes(location, read_remote=read_remote, read_part=storage().read_part)


def named_photos(
    names: Sequence[str], labels: tuple[str, ...], *, flag: str = "PHOTO", must_exist: bool = False
) -> Iterator[tuple[str, str]]:
    """The photos that somebody names: photos, those of folders and globs, then those of lists.

    Args:
      names: local paths, globs and URIs.
      labels: of the model. They tell the columns of a list from each other.
      flag: the option that names them, for messages.
      must_exist: see `find_sources`.

    Yields:
      The URI of each photo, as its list has it, and its location.

    Raises:
      InputError: a folder has no photo in it, nothing matches a glob, or a list cannot be read.
    """
    # here: its imports would double the time of `--help`
    from preprocess.images.photo_sources import find_sources
    from preprocess.lists.labels import LabelDict
    from preprocess.lists.opened_list import open_list
    from preprocess.lists.rows import parse_rows

    found = find_sources([local_path_of(name) for name in names], storage(), flag=flag, must_exist=must_exist)
    yield from ((photo, photo) for photo in found.photos)
    dictionary = LabelDict(labels, optional=True)
    for path in found.lists:
        try:
            with storage().open(path) as stream:
                content, list_format, _ = open_list(stream, list_path=path, labels=dictionary)
                rows = parse_rows(
                    content, list_path=path, labels=dictionary, unknown_labels="unlabeled", list_format=list_format
                )
                yield from ((row.uri, resolve_uri(row.uri, path)) for row in rows if row.outcome is None)
        except OSError as error:
            raise InputError(f"{flag}: the list {path} cannot be read ({cause_of(error)}).") from error


@dataclasses.dataclass(frozen=True)
class _BadPhoto:
    """A photo that cannot be read: its path, and why; whether that is a fault of the machine and not of the photo."""

    path: str
    message: str
    is_machine_fault: bool = False


def print_bad_photo(path: str, message: str) -> None:
    """Prints a line on standard error about a photo that cannot be read."""
    words = message if shown(path) in message else f"{path}: {message}"
    print(f"error: {' '.join(words.split())}", file=sys.stderr)


class PhotoReader:
    """Reads and decodes photos ahead, and gives them in their order. A photo that cannot be read is reported.

    Only a bounded number of photos is in memory, however many there are.

    Attributes:
      num_bad: how many photos could not be read so far.
      num_left: how many photos were not given out or reported yet.
    """

    def __init__(self, paths: Sequence[str], size: int, on_bad: Callable[[str, str], None] = print_bad_photo):
        """Starts to read.

        Args:
          paths: of the photos.
          size: the width and the height of the model's images, in pixels.
          on_bad: is called with the path of each photo that cannot be read, and why.
        """
        self._on_bad = on_bad
        self.num_bad = 0
        self.num_left = len(paths)
        self._paths = iter(paths)
        self._held: _BadPhoto | None = None
        self._faults_in_a_row = 0
        self._loader = ImageLoader(
            read=read_photo,
            decode=IsolatedDecoder(size=size),
            max_ahead=_MAX_AHEAD,
            deadline_sec=_READ_DEADLINE_SEC + RetryPolicy().limit_sec,
        )
        self._loader.add(local_path_of(path) for path in paths)

    def next_batch(self, size: int) -> list[tuple[str, bytes]]:
        """As `next_images`, with a PNG of the pixels that the model gets."""
        return [(path, encode_png(image.pixels)) for path, image in self.next_images(size)]

    def next_images(self, size: int) -> list[tuple[str, LoadedImage]]:
        """The paths of the next photos, with the pixels that the model gets.

        It waits for one photo, and takes others only if they are ready. So no result waits for a slow photo after it.

        Args:
          size: how many photos to give at most.

        Returns:
          Fewer photos than `size` if some are not ready or cannot be read; none if no photo is left.

        Raises:
          InputError: the machine or its storage failed for many photos in a row.
        """
        batch: list[tuple[str, LoadedImage]] = []
        while self.num_left and len(batch) < size and (not batch or self._loader.next_is_ready):
            photo = self._next_photo()
            if isinstance(photo, _BadPhoto):
                self._held = photo
                if batch:  # It is reported after the results of the photos before it.
                    break
                self.report_held()
            else:
                self.num_left -= 1
                batch.append(photo)
        return batch

    def _next_photo(self) -> tuple[str, LoadedImage] | _BadPhoto:
        path = next(self._paths)
        try:
            image = self._loader.next()
        except (InputError, MachineFault) as error:
            return _BadPhoto(path, str(error), is_machine_fault=isinstance(error, MachineFault))
        if isinstance(image, LoadedImage):
            self._faults_in_a_row = 0
            return path, image
        assert isinstance(image, RowFailure)
        return _BadPhoto(path, f"{image.message.rstrip('.')} ({image.reason})")

    def report_held(self) -> None:
        """Reports the bad photo that ended the last batch, if one did."""
        bad, self._held = self._held, None
        if bad is not None:
            self.num_left -= 1
            self._report(bad)

    def report(self, path: str, message: str) -> None:
        """Reports a photo that could be read here, and that the model cannot read."""
        self._report(_BadPhoto(path, message))

    def _report(self, bad: _BadPhoto) -> None:
        self._on_bad(bad.path, bad.message)
        self.num_bad += 1
        self._faults_in_a_row = self._faults_in_a_row + 1 if bad.is_machine_fault else 0
        if self._faults_in_a_row == _MAX_FAULTS and self.num_left:
            raise InputError(
                f"{_MAX_FAULTS} photos in a row could not be read for a fault of this machine or its storage, so "
                f"{counted(self.num_left, 'photo')} after them {'was' if self.num_left == 1 else 'were'} not tried."
            )
