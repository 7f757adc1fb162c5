"""Finds the photos that somebody names for prediction: photos, folders and globs of photos, and lists of photos."""

from __future__ import annotations

import dataclasses
import glob
import os
import stat
from collections.abc import Sequence

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from preprocess.images.class_folders import find_local_images, find_stored_images, formats_hint, is_listable
from preprocess.images.formats import format_by_name
from preprocess.storage.base import Storage
from preprocess.storage.uris import has_scheme, is_web

_GLOB_CHARACTERS = "*?["
_LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".tar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoSources:
    """What somebody named.

    Attributes:
      photos: the locations of photos; one that was named twice is there twice.
      lists: the paths of lists, each once.
    """

    photos: tuple[str, ...]
    lists: tuple[str, ...]


def find_sources(
    names: Sequence[str], storage: Storage, *, flag: str, for_job: bool = False, must_exist: bool = False
) -> PhotoSources:
    """Finds out what names stand for, in their order.

    A folder stands for all photos in it and below. A glob stands for the photos and lists that it matches, and for
    the photos in the folders that it matches. A file whose ending is that of a list is a list.

    Args:
      names: paths, globs or URIs.
      storage: opens them.
      flag: the option that names them, for messages.
      for_job: whether they are for a job. Then a file with the ending of neither a photo nor a list is a list, and what
        is not there is refused now; otherwise such files are photos, and fail for themselves.
      must_exist: whether a name of nothing is refused now also where it is not for a job. A name with the ending of a
        photo is a photo in any case, and fails for itself.

    Raises:
      InputError: a folder has no photo in it, nothing matches a glob, or storage cannot be read.
    """
    photos: list[str] = []
    lists: dict[str, None] = {}
    for name in names:
        for path in _expanded(name, storage, flag, must_exist=for_job or must_exist):
            if os.path.isdir(path) if not has_scheme(path) else path.endswith("/"):
                photos += _photos_in(path, storage, flag)
            elif _is_list(path, unknown_is_list=for_job):
                lists[path] = None
            else:
                photos.append(path)
    return PhotoSources(photos=tuple(photos), lists=tuple(lists))


def _require_there(name: str, flag: str) -> None:
    """Raises InputError if a local name is that of a pipe or a device, or of nothing. A photo may be missing."""
    if _is_file_or_folder(name) or (format_by_name(name) is not None and not os.path.exists(name)):
        return
    if os.path.exists(name):
        raise InputError(f"{flag}: {name!r} is a pipe or a device. Pass a list of photos, a folder, or a glob.")
    raise InputError(f"{flag}: there is no file or folder {name!r}. Pass a list of photos, a folder, or a glob.")


def _expanded(name: str, storage: Storage, flag: str, *, must_exist: bool) -> list[str]:
    """The files and folders that a name stands for. A name of what is not there stands for itself."""
    if is_web(name):
        return [name]
    if not has_scheme(name):
        if must_exist and not any(character in name for character in _GLOB_CHARACTERS):
            _require_there(name, flag)
        if os.path.lexists(name) or not any(character in name for character in _GLOB_CHARACTERS):
            return [name]
        if found := sorted(path for path in glob.glob(name, recursive=True) if _is_file_or_folder(path)):
            return found
        raise InputError(f"{flag}: nothing matches {name!r}.")
    if any(character in name for character in _GLOB_CHARACTERS):
        if found := _match(name, storage, flag):
            return found
        raise InputError(f"{flag}: nothing matches {name!r}.")
    if not name.endswith("/") and (format_by_name(name) or name.lower().endswith(_LIST_SUFFIXES)):
        return [name]  # Its ending says that it is a file, and asking for it takes time.
    if _match(name, storage, flag) == [name]:
        return [name]
    return [f"{name.rstrip('/')}/"]


def _match(name: str, storage: Storage, flag: str) -> list[str]:
    try:
        return storage.match(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag}: {name} cannot be looked at ({getattr(error, 'strerror', None) or error})."
        ) from error


def _is_file_or_folder(path: str) -> bool:
    """False for pipes, devices and sockets, which a glob may match: opening one could block forever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _photos_in(folder: str, storage: Storage, flag: str) -> list[str]:
    with doing(f"looking for photos in {folder}", unit="file") as progress:
        if has_scheme(folder):
            found = find_stored_images(folder, storage, progress, flag=flag)
        else:
            found = find_local_images(folder, progress)
    root = folder if folder.endswith("/") else f"{folder}/"
    photos = [f"{root}{path}" for path in found.all_images()]
    if not photos:
        there = f" ({counted(len(found.others), 'other file')})" if found.others else ""
        raise InputError(f"{flag}: no photo in the folder {folder!r}{there}.{formats_hint(found.others)}")
    return photos


def _is_list(path: str, *, unknown_is_list: bool) -> bool:
    if format_by_name(path) is not None:
        return False
    return unknown_is_list or path.lower().endswith(_LIST_SUFFIXES)


def unlistable(photos: Sequence[str]) -> list[str]:
    """Those of some locations that cannot stand in a list: not UTF-8, a line break, a blank at the end."""
    return [path for path in photos if not is_listable(path)]
