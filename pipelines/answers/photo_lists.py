"""The lists of the photos to answer for: those that were named, and one of all photos that folders and globs name."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence

from configs.errors import InputError
from configs.json_text import json_line
from preprocess.images.photo_sources import find_sources, unlistable
from preprocess.storage.base import Storage, write_file
from preprocess.storage.uris import has_scheme

_NAME = "list-{digest}.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoLists:
    """The lists of the photos.

    Attributes:
      named: those that the user named.
      made: the one that was made; None if there is none.
    """

    named: tuple[str, ...]
    made: str | None

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return self.named if self.made is None else (*self.named, self.made)


def make_lists(names: Sequence[str], folder: str, storage: Storage) -> PhotoLists:
    """Finds the photos, and writes a list of those that stand in none.

    Its name has a digest of its content. So a run that is refused, because another one writes there, does not change
    the list of that one.

    Args:
      names: lists, photos, folders and globs.
      folder: for the list.
      storage: of all of them.

    Raises:
      InputError: there is no such folder or file, the name of a photo cannot stand in a list, or the list cannot be
        written.
    """
    found = find_sources(names, storage, flag="input_path", for_job=True)
    if not found.photos:
        return PhotoLists(named=found.lists, made=None)
    if bad := unlistable(found.photos):
        raise InputError(
            f"input_path: the name {bad[0]!r} cannot stand in a list (UTF-8, no line break, no blank at its end). "
            "Rename the photo."
        )
    absolute = [photo if has_scheme(photo) else os.path.abspath(photo) for photo in found.photos]
    lines = b"".join(json_line({"image_uri": photo}) for photo in dict.fromkeys(absolute))
    path = posixpath.join(folder, _NAME.format(digest=hashlib.sha256(lines).hexdigest()[:12]))
    try:
        write_file(storage, path, lines)
    except OSError as error:
        raise InputError(f"output_path: cannot write to {path!r} ({error}).") from error
    return PhotoLists(named=found.lists, made=path)


@contextlib.contextmanager
def gone_if_refused(lists: PhotoLists, *, unless: str, storage: Storage) -> Iterator[None]:
    """Deletes the list that was made if the `with` block refuses the job: a refused job leaves no files.

    Args:
      lists: the lists.
      unless: a file that is there if a job has begun that may need the list.
      storage: of both.
    """
    try:
        yield
    except InputError:
        if lists.made is not None:
            with contextlib.suppress(OSError):
                if not storage.match(glob.escape(unless)):
                    storage.delete_file(lists.made)
                    os.rmdir(posixpath.dirname(lists.made))
        raise


def delete_other_lists(lists: PhotoLists, folder: str, storage: Storage) -> None:
    """Deletes the lists that earlier jobs made in a folder. Raises OSError."""
    for path in storage.match(posixpath.join(glob.escape(folder), _NAME.format(digest="*"))):
        if path != lists.made:
            storage.delete_file(path)
