"""Makes a list of a tar archive of images, such as a shard of WebDataset or img2dataset.

The list has a row for each image in the archive: its URI (`preprocess.lists.tar_members`) and its labels. In a shard,
the files of one sample have one name up to the first dot: `000012.jpg`, `000012.cls`, `000012.json`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import posixpath
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from configs.errors import InputError
from preprocess.lists.labels import LabelDict
from preprocess.lists.tar_members import member_uri
from preprocess.lists.values import field_of, texts_of

TAR_HEAD_BYTES = 512
FOLDER = "folder"
_MAGIC = slice(257, 262)
_IMAGES = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff", "avif", "jp2", "j2k", "jpx"),
        *("ppm", "pgm", "pbm", "pnm", "heic", "heif"),
    }
)
# Where labels may stand, in the order in which they are looked for.
_SOURCES = ("cls", "label", "class", "txt", "json.label", "json.labels", "json.class", "json.class_name", FOLDER)
_SAMPLES = 200
_MAX_LABEL_BYTES = 64 * 1024
_SPOOL_BYTES = 64 * 1024 * 1024

_Sample = list[tarfile.TarInfo]


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these `TAR_HEAD_BYTES` is a tar archive."""
    return head[_MAGIC] == b"ustar"


def label_source(stream: BinaryIO, labels: LabelDict, *, list_path: str) -> str | None:
    """Where the labels of an archive stand: the one source that holds labels of the dictionary in most samples.

    Args:
      stream: the archive; it can be positioned.
      labels: the dictionary.
      list_path: its path, for messages.

    Returns:
      The extension of a file of a sample, "json." and a field, or `FOLDER` for the folder of the image; None if the
      images have no labels of the dictionary.

    Raises:
      InputError: it is no whole archive, it has no image, or its classes are not in the dictionary.
    """
    with _opened(stream, list_path) as archive:
        all_samples = (sample for sample in _samples(archive, list_path) if any(map(_is_image, sample)))
        samples = list(itertools.islice(all_samples, _SAMPLES))
        if not samples:
            raise InputError(f"{list_path}: a tar archive without an image file in it.")
        found = {source: [_labels(archive, sample, source) for sample in samples] for source in _SOURCES}
    for source, of_samples in found.items():
        known = [bool(names) and all(labels.id_of(name) is not None for name in names) for names in of_samples]
        if sum(known) * 2 >= len(samples):
            return source
    unknown = next((name for names in found["cls"] for name in names), None)
    if unknown is not None:
        raise InputError(
            f"{list_path}: its .cls files hold classes such as {unknown!r}, which are not in the dictionary. Write the "
            "classes into it as they stand in these files, one a line."
        )
    return None


def write_index(stream: BinaryIO, source: str | None, *, list_path: str) -> BinaryIO:
    """The list of an archive as a CSV: a row for each image, in the order of the archive.

    Args:
      stream: the archive; it can be positioned.
      source: of `label_source`.
      list_path: its path; URIs are relative to its folder.
    """
    spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115 (the reader closes it)
    text = io.TextIOWrapper(spool, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\n")
    name = posixpath.basename(list_path)
    with _opened(stream, list_path) as archive:
        for sample in _samples(archive, list_path):
            names = _labels(archive, sample, source) if source is not None else ()
            for member in filter(_is_image, sample):
                uri = member_uri(name, member.name, offset=member.offset_data, num_bytes=member.size)
                writer.writerow((uri, *names))
    text.flush()
    text.detach()
    spool.seek(0)
    return spool


def _opened(stream: BinaryIO, list_path: str) -> tarfile.TarFile:
    stream.seek(0)
    try:
        return tarfile.open(fileobj=stream, mode="r:")
    except tarfile.TarError as error:
        raise InputError(f"{list_path}: not a whole tar archive ({error}).") from error


def _samples(archive: tarfile.TarFile, list_path: str) -> Iterator[_Sample]:
    """The regular files of an archive, together with those that follow them under the same name up to the first dot."""
    files = (member for member in _members(archive, list_path) if member.isreg() and not member.issparse())
    for _, members in itertools.groupby(files, key=lambda member: _key(member.name)):
        yield list(members)


def _members(archive: tarfile.TarFile, list_path: str) -> Iterator[tarfile.TarInfo]:
    # The archive keeps what it has read, which would be too much of one with millions of members.
    try:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            yield member
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{list_path}: not a whole tar archive ({error}).") from error


def _key(name: str) -> str:
    folder, base = posixpath.split(name)
    return f"{folder}/{base.split('.', 1)[0]}"


def _extension(name: str) -> str:
    return posixpath.basename(name).partition(".")[2].casefold()


def _is_image(member: tarfile.TarInfo) -> bool:
    # macOS stores the metadata of a.jpg as ._a.jpg.
    return member.name.rpartition(".")[2].casefold() in _IMAGES and not posixpath.basename(member.name).startswith("._")


def _labels(archive: tarfile.TarFile, sample: Iterable[tarfile.TarInfo], source: str) -> tuple[str, ...]:
    """The labels of a sample; none if it has no such file."""
    members = tuple(sample)
    if source == FOLDER:
        folder = posixpath.basename(posixpath.dirname(members[0].name))
        return (folder,) if folder else ()
    extension, _, field = source.partition(".")
    member = next((member for member in members if _extension(member.name) == extension), None)
    if member is None or member.size > _MAX_LABEL_BYTES:
        return ()
    content = archive.extractfile(member)
    text = content.read().decode("utf-8", "replace") if content is not None else ""
    if not field:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        row: Any = json.loads(text)
        return tuple(texts_of(field_of(row, field))) if isinstance(row, dict) else ()
    except (ValueError, TypeError, OverflowError, RecursionError):
        return ()
