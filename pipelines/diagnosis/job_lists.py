"""Compares lists and a dictionary with those of which a job was defined, also if they were moved or changed since."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from configs.errors import InputError
from pipelines.diagnosis.look import Look
from pipelines.diagnosis.next_commands import value_of
from preprocess.lists.labels import parse_label_dict
from preprocess.storage.base import has_file
from preprocess.storage.uris import has_scheme


def position_in_job(list_path: str, report: Mapping[str, Any], look: Look) -> int | None:
    """The position of a list among those of a job, also if its folder was moved since; None if it is none of them.

    Args:
      list_path: the list.
      report: of the job, or its definition as the field `definition`.
      look: reads the list, to compare its digest.
    """
    definition = report.get("definition")
    found = definition.get("input_path") if isinstance(definition, dict) else report.get("input")
    entries = [
        entry if isinstance(entry, list) and entry else [entry] for entry in (found if isinstance(found, list) else ())
    ]
    for index, entry in enumerate(entries):
        if isinstance(entry[0], str) and _same(entry[0], list_path):
            return index
    for index, (path, *digest) in enumerate(entries):
        is_moved = isinstance(path, str) and same_name(path, list_path) and not os.path.lexists(path)
        if is_moved and digest and not has_scheme(list_path) and digest[0] == look.digest(list_path):
            return index
    return None


def has_changed(list_path: str, definition: Mapping[str, Any], look: Look) -> bool:
    """Whether a list is certainly not what it was when a job was defined."""
    for index, entry in enumerate(definition.get("input_path") or ()):
        if isinstance(entry, list) and len(entry) == 2 and same_name(str(entry[0]), list_path):
            found = look.digest(list_path)
            return found is not None and found != entry[1] and _is_hashed_whole(definition, index)
    return False


def changes(definition: Mapping[str, Any], note: Mapping[str, Any] | None, look: Look) -> Iterator[tuple[str, str]]:
    """(sentence, file) for each list and the dictionary of a job that are not what they were."""
    lists = definition.get("input_path")
    paths = []
    for entry in lists if isinstance(lists, list) else ():
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            continue
        path, sha256 = entry
        paths.append(path)
        if not has_file(look.storage, path):
            yield f"the list {path} is not there any more", path
        elif _is_hashed_whole(definition, len(paths) - 1) and not has_scheme(path):
            found = look.digest(path)
            if found is not None and found != sha256:
                yield f"the list {path} has changed since the job began, so it is another job's list now", path
    dictionary = _dictionary_path(note)
    if dictionary and "input_dict" in definition:
        found = _labels_digest(dictionary, look)
        if found is not None and found != definition["input_dict"]:
            yield (
                f"the dictionary {dictionary} has changed since the job began, so the ids of labels differ",
                dictionary,
            )


def _is_hashed_whole(definition: Mapping[str, Any], index: int) -> bool:
    """Whether a definition holds the digest of a list's file. Of a tar archive it holds that of an index."""
    formats = definition.get("list_formats")
    if not isinstance(formats, list):
        return True
    return index < len(formats) and isinstance(formats[index], dict) and formats[index].get("kind") != "tar"


def _dictionary_path(note: Mapping[str, Any] | None) -> str | None:
    """The dictionary of a noted run. Without a note, nothing says which one it was."""
    path = value_of(note["arguments"], "--input_dict") if note is not None else None
    return path if path is None or has_scheme(path) else os.path.join(str((note or {}).get("folder") or ""), path)


def same_name(one: str, other: str) -> bool:
    """Whether two paths end in one name."""
    return posixpath.basename(one) == posixpath.basename(other)


def _same(one: str, other: str) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _labels_digest(path: str, look: Look) -> str | None:
    """The digest of the labels of a dictionary, as a definition has it; None if there is no dictionary."""
    raw = look.read(path)
    try:
        return parse_label_dict(raw or b"", where=path).sha256
    except InputError:
        return None
