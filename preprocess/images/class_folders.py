"""Finds the images in a folder of class-named folders, on this machine or in a bucket, in one pass.

Photos below nested folders belong to the folder of the first level. Hidden files and what operating
systems and photo managers leave behind are ignored. A name with the extension of a format that is read is taken for
an image without opening it (the pipeline accounts for broken ones). RAW photos are left out, by their names, and every
other file is known by its content. `preprocess.images.formats` has the formats.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from configs.activity import Activity
from configs.counts import counted
from configs.errors import InputError
from preprocess.images.formats import (
    format_by_content,
    format_by_name,
    is_image_name,
    is_raw_name,
    is_read_here,
)
from preprocess.storage.base import Storage, TooLarge

_MAX_NAMED = 3
# Of a file in a bucket that is not named like an image.
_MAX_SNIFFED_BYTES = 64 * 1024 * 1024
# What of a file tells its format.
_HEAD_BYTES = 64 * 1024
_LITTER = frozenset(
    {
        "$recycle.bin",
        "#recycle",  # Synology's recycle bin
        "#snapshot",
        "@__thumb",  # QNAP
        "@eadir",  # thumbnails that a Synology disk station makes
        "@recently-snapshot",
        "@recycle",  # QNAP's recycle bin
        "@sharebin",
        "@sharesnap",
        "@tmp",
        "__macosx",  # what macOS adds to zip archives
        "__pycache__",
        "_vti_cnf",  # FrontPage: texts with the names of the images
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "found.000",  # what Windows makes of damaged files
        "icon\r",
        "lost+found",
        "lost.dir",  # Android
        "network trash folder",
        "recycled",
        "recycler",
        "system volume information",
        "temporary items",
        "thumbs.db",
    }
)


@dataclasses.dataclass(kw_only=True)
class ClassFolders:
    """The content of a folder of class folders. All paths are relative to it, with "/" between their parts.

    Attributes:
      images: paths of the images by class folder; a folder without an image has an empty list.
      loose: images directly in the folder, which belong to no class.
      others: files that are no images.
      unlistable: images whose names cannot stand in a list: not UTF-8, a line break, a blank at the end.
      ignored: folders that were not looked into because systems make them, such as recycle bins; without hidden ones.
    """

    images: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    loose: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)
    unlistable: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)

    def all_images(self) -> list[str]:
        """The paths of all images that can stand in a list, in classes or loose, sorted."""
        loose = [path for path in self.loose if is_listable(path)]
        return sorted([*loose, *(path for paths in self.images.values() for path in paths)])

    @property
    def num_images(self) -> int:
        """Images in class folders."""
        return sum(len(paths) for paths in self.images.values())


def find_local_images(image_dir: str, progress: Activity | None = None) -> ClassFolders:
    """Reads a local folder of class folders. Symbolic links are followed, but loops of links are not.

    Args:
      image_dir: the folder.
      progress: is told of each file.

    Raises:
      InputError: a folder cannot be read.
    """
    found = ClassFolders()
    for path, entry in _walk(image_dir):
        if progress is not None:
            progress.done += 1
        if _is_dir(entry):
            if _is_ignored(entry.name):
                found.ignored.append(path)
            elif "/" not in path:
                found.images[path] = []
            continue
        # A broken link is listed like a broken image, as is one to itself. Sockets and pipes are not listed: opening
        # one could block forever.
        if not (entry.is_symlink() or entry.is_file()):
            continue
        _sort_in(found, path, functools.partial(_open_local, entry.path))
    return found


def find_stored_images(
    image_dir: str, storage: Storage, progress: Activity | None = None, *, flag: str = "--image_dir"
) -> ClassFolders:
    """Reads a folder of class folders on any filesystem that Beam opens.

    Args:
      image_dir: URI of the folder; no pattern.
      storage: opens it.
      progress: is told of each file.
      flag: the option that names the folder, for messages.

    Raises:
      InputError: the folder cannot be listed, or a file whose name does not tell what it is cannot be read.
    """
    root = image_dir.rstrip("/") + "/"
    try:
        uris = storage.match(root + "**")
    except OSError as error:
        raise InputError(f"{flag}: {image_dir} cannot be listed ({error}).") from error
    found = ClassFolders()
    ignored_folders: set[str] = set()
    for uri in uris:
        if progress is not None:
            progress.done += 1
        path = uri.removeprefix(root)
        *folders, name = path.split("/")
        ignored = next((number for number, part in enumerate((*folders, name)) if _is_ignored(part)), None)
        if not name or ignored is not None:
            if ignored is not None and ignored < len(folders) and not folders[ignored].startswith("."):
                ignored_folders.add("/".join(folders[: ignored + 1]))
            continue
        if folders:
            found.images.setdefault(folders[0], [])
        _sort_in(found, path, functools.partial(_open_stored, storage, uri, flag))
    found.ignored.extend(ignored_folders)
    return found


def _walk(image_dir: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields (relative path, entry) of everything below a folder, a folder before what it holds.

    Folders that systems make are yielded too, but not what they hold. Hidden files and folders are not.
    """
    # Each folder with the real paths of the folders that the links on the way to it came from and led to. A stack, and
    # no recursion: folders may be nested deeper than Python's calls.
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(image_dir, "", (os.path.realpath(image_dir),))]
    while waiting:
        folder, prefix, real_chain = waiting.pop()
        try:
            with os.scandir(folder) as scan:
                entries = list(scan)
        except OSError as error:
            raise InputError(
                f"{folder}: the folder cannot be read ({error.strerror}). Make it readable, or move it away."
            ) from error
        for entry in entries:
            path, chain = prefix + entry.name, real_chain
            if not _is_dir(entry):
                if not _is_ignored(entry.name):
                    yield path, entry
                continue
            if _is_ignored(entry.name):
                if not entry.name.startswith("."):
                    yield path, entry
                continue
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                chain = (*real_chain, os.path.realpath(folder), target)
                if any(f"{real}/".startswith(f"{target.rstrip('/')}/") for real in chain[:-1]):
                    continue  # the link leads back to a folder above
            yield path, entry
            waiting.append((entry.path, f"{path}/", chain))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself, or to where one may not look, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _open_local(path: str) -> BinaryIO:
    return open(path, "rb")


def _open_stored(storage: Storage, uri: str, flag: str) -> BinaryIO:
    """Opens a file to see whether it is an image. Raises InputError if storage fails, rather than skip an image."""
    try:
        # Limited, because the whole file is read, and a folder of photos may contain a film.
        return io.BytesIO(storage.read(uri, max_bytes=_MAX_SNIFFED_BYTES))
    except TooLarge:
        raise
    except OSError as error:
        raise InputError(f"{flag}: {uri} cannot be read ({error}).") from error


def _sort_in(found: ClassFolders, path: str, open_file: Callable[[], BinaryIO]) -> None:
    """Adds one file to the group to which it belongs."""
    folder, slash, rest = path.partition("/")
    # A RAW photo is not opened: it may look like a TIFF file.
    if not is_image_name(path) and (is_raw_name(path) or not _is_image_content(open_file)):
        found.others.append(path)
    elif not slash:
        found.loose.append(path)
    elif not is_listable(rest):  # the folder's own name is judged by `labels_of`
        found.unlistable.append(path)
    else:
        found.images[folder].append(path)


def _is_image_content(open_file: Callable[[], BinaryIO]) -> bool:
    """True if the content is that of a format that is read here. No pixel is decoded."""
    try:
        with open_file() as stream:
            found = format_by_content(stream.read(_HEAD_BYTES))
    except OSError:  # a local file that may not be read, or one in a bucket that is too large
        return False
    # A TGA file has no signature at its start, so many a file that is no image looks like one.
    return found is not None and is_read_here(found) and found.name != "TGA"


def why_left_out(image_dir: str, path: str) -> str | None:
    """Why a local photo is in no list of its folder.

    Args:
      image_dir: the folder of class folders.
      path: of the photo, relative to it.

    Returns:
      The end of a sentence; None if the photo is taken.
    """
    *folders, name = path.split("/")
    for part in (*folders, name):
        if part.startswith("."):
            return f"{part!r} is hidden, and hidden files and folders are left out"
        if part.lower() in _LITTER:
            return f"{part!r} is a name of what systems leave behind, which is left out"
    whole = os.path.join(image_dir, path)
    if not os.path.islink(whole) and not os.path.isfile(whole):
        return "it is not a file"
    found = ClassFolders()
    if folders:
        found.images[folders[0]] = []
    _sort_in(found, path, functools.partial(_open_local, whole))
    if found.others:
        named = format_by_name(path)
        return f"{named.name} is not read; {named.advice}" if named else "its content is not that of an image"
    if found.loose:
        return f"it lies directly in {image_dir}, not in a folder named for its class, and so it has no label"
    if found.unlistable:
        return "its name cannot stand in a list (UTF-8, no line break, no blank at its end)"
    return None


def is_listable(path: str) -> bool:
    """True if a path can stand in a list: it is UTF-8 without line breaks, and does not end in a blank."""
    if path.isprintable():  # the common case: neither line breaks nor undecodable bytes
        return not path[-1:].isspace()
    return not path[-1:].isspace() and len(path.splitlines()) == 1 and is_utf8(path)


def is_utf8(text: str) -> bool:
    """Whether a name of a file can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def labels_of(found: ClassFolders, image_dir: str) -> dict[str, str]:
    """Class folder -> label, for the folders that have images, in the order of dict.txt.

    Raises:
      InputError: fewer than two classes, or the name of a folder cannot be a label.
    """
    folders = [folder for folder, paths in found.images.items() if paths]
    if not folders:
        raise InputError(_no_images_message(found, image_dir))
    by_label: dict[str, str] = {}
    for folder in sorted(folders):
        label = _label_of(folder, image_dir)
        if label in by_label:
            raise InputError(
                f"{image_dir}: the folders {by_label[label]!a} and {folder!a} are one label in Unicode's "
                f"normal form, {label!r}, and dict.txt may name it once. Merge or rename them."
            )
        by_label[label] = folder
    if len(by_label) == 1:
        ((label, folder),) = by_label.items()
        deeper = os.path.join(image_dir, folder)
        # Of folders that are split already, the class lies deeper, in several folders.
        inside = found.images[folder][0].startswith(f"{folder}/")
        raise InputError(
            f"{image_dir}: only one class has images ({label!r}, {found.num_images} of them), and a "
            "classifier needs at least two. Give each class a folder of its own"
            + (f"; if they lie inside that one, pass --image_dir {shlex.quote(deeper)}." if inside else ".")
        )
    return {by_label[label]: label for label in sorted(by_label)}


def _label_of(folder: str, image_dir: str) -> str:
    try:
        label = unicodedata.normalize("NFC", folder)
        label.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{image_dir}: the name of class folder {folder!r} is not UTF-8. Rename it.") from error
    if label != label.strip() or label.startswith("\ufeff") or len(label.splitlines()) != 1:
        raise InputError(
            f"{image_dir}: class folder {folder!r} cannot stand in dict.txt, where a label is one line "
            "without blanks around it. Rename the folder."
        )
    return label


def _no_images_message(found: ClassFolders, image_dir: str) -> str:
    if found.loose:
        return (
            f"{image_dir}: the images lie directly in it ({few_of(found.loose)}), and so have no label. Put "
            "each in a folder named for its class, such as daisy/photo.jpg."
        )
    if not found.images and not found.others:
        return f"{image_dir}: the folder is empty. It must hold a folder for each class, with the photos in it."
    if found.unlistable:
        return (
            f"{image_dir}: no image with a name that can stand in a list (UTF-8, no line break, no blank at "
            f"its end); found {few_of(found.unlistable)}. Rename them."
        )
    seen = f"{counted(len(found.images), 'folder')} and {counted(len(found.others), 'other file')}"
    example = f", such as {min(found.others)}" if found.others else ""
    return (
        f"{image_dir}: no image in it, only {seen}{example}. It must hold a folder for each class, with "
        f"the photos in it.{formats_hint(found.others)}"
    )


def few_of(names: Sequence[str]) -> str:
    """The first names of many, for example "a, b, c and 4 more"."""
    shown = [name.encode(errors="backslashreplace").decode() for name in sorted(names)[:_MAX_NAMED]]
    shown = [name if name.isprintable() else repr(name) for name in shown]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def formats_hint(paths: Sequence[str]) -> str:
    """What to do with images of formats that are not read here, by their names; empty if there are none."""
    by_advice: dict[str, set[str]] = {}
    for path in paths:
        image_format = format_by_name(path)
        if image_format is not None:
            advice = re.sub(r"\bit\b", "them", image_format.advice)
            by_advice.setdefault(advice, set()).add(image_format.name)
    return "".join(
        f" To use {' and '.join(sorted(by_advice[advice]))} files, {advice}." for advice in sorted(by_advice)
    )
