"""The cache of converted networks on disk, so that a program converts a network only at its first start.

An entry is a folder of files under `HUGS_CACHE_DIR` (default ~/.cache/hugs). Its file `entry.json` has the key and the
checksums of the other files. An entry appears by one rename, so a reader sees a complete entry or none. A bad entry
(damaged, foreign, partly deleted) is made again. Faults of the folder (read-only, full) cost only time. The cache keeps
the `MAX_ENTRIES` entries that were used last, and all that were used within a day, because a running job may read them.

Checksums detect damage, but not malice, because an attacker would write matching checksums. So an entry is used only if
this user or the administrator wrote it, and nobody else may write to it. The folder and the entries are made with mode
0700 regardless of the umask, and the folder of another user is not used. In addition, every report contains the digest
of the graph that is run, computed from its bytes (`preprocess.engines.libraries`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any

from preprocess.storage.digests import digest_of_file
from preprocess.storage.scratch import Scratch, scratch_folder

_LOGGER = logging.getLogger(__name__)

# An entry is a network of 25 to 90 MB; int8 makes one for each list that it was calibrated on.
MAX_ENTRIES = 20

_ENTRY = "entry.json"
_IN_USE_SEC = 24 * 3600
_COPY_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Key = Mapping[str, Any]
"""Everything that an entry was made from, as JSON. Two different keys have two entries."""


def cache_folder() -> str:
    """The folder of the entries: `HUGS_CACHE_DIR`, or ~/.cache/hugs."""
    return os.environ.get("HUGS_CACHE_DIR") or os.path.expanduser("~/.cache/hugs")


class ModelCache:
    """Entries by key.

    If the cache cannot keep files, they are in a temporary folder, which exists as long as this object.
    """

    def __init__(self, folder: str | None = None):
        self._folder = folder or cache_folder()
        self._unkept: list[Scratch] = []
        self._digests: dict[str, str] = {}  # The digests of files that were checked, by path.

    def find(self, key: Key) -> str | None:
        """The folder of the entry's files; None if there is no entry, or if it is not exactly what this user stored."""
        folder = self._path(key)
        try:
            if not self._is_safe() or not _is_safe_entry(folder):
                return None
            with open(os.path.join(folder, _ENTRY), encoding="utf-8") as stream:
                entry = json.load(stream)
            if entry["key"] != _as_json(key) or {_ENTRY, *entry["files"]} != set(os.listdir(folder)):
                return None
            for name, digest in entry["files"].items():
                path = os.path.join(folder, name)
                self._digests[path] = digest_of_file(path)
                if self._digests[path] != digest:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(os.path.join(folder, _ENTRY))  # This time says when the entry was last used.
        return folder

    def _is_safe(self) -> bool:
        """Whether nobody else can change the files in the folder. If this user owns it, removes the rights of others.

        Raises:
          OSError: there is no such folder.
        """
        status = os.stat(self._folder)
        if _is_private(status):
            return True
        if os.name == "posix" and status.st_uid == os.geteuid():
            # Others may have written entries before. The owner and the mode of each entry show that.
            os.chmod(self._folder, stat.S_IMODE(status.st_mode) & ~_WRITABLE_BY_OTHERS)
            return True
        _say_once(
            f"{self._folder}: this cache of networks belongs to another user or may be written by others, so it is not "
            "used, and networks are prepared anew by each program. Set HUGS_CACHE_DIR to a folder of your own."
        )
        return False

    def folder_of_library(self, name: str) -> str | None:
        """A folder beside the entries in which a library keeps files of its own; None if nothing can be kept."""
        folder = os.path.join(self._folder, name)
        with contextlib.suppress(OSError):
            _make_private_folders(folder)
            if self._is_safe() and _is_private(os.lstat(folder)):
                return folder
        return None

    def sha256_of(self, path: str) -> str:
        """The digest of a file of an entry, from its bytes: 64 hex digits. Raises OSError if it cannot be read."""
        if path not in self._digests:
            self._digests[path] = digest_of_file(path)
        return self._digests[path]

    def find_or_make(self, key: Key | None, write: Callable[[str], None]) -> str:
        """The folder of the entry's files. If there is no entry, `write` makes the files in the folder that it gets.

        Args:
          key: the key of the entry; None for files that the cache must not keep, because no key can identify them.
          write: writes the files. If it raises an exception, the caller gets the exception and nothing is kept.
        """
        found = None if key is None else self.find(key)
        if found is not None:
            return found
        made = Scratch()
        try:
            write(made.path)
        except BaseException:
            made.cleanup()
            raise
        if key is not None:
            kept = self._keep(key, made.path)
            if kept is not None:
                made.cleanup()
                return kept
        self._unkept.append(made)
        return made.path

    def _keep(self, key: Key, made: str) -> str | None:
        final = self._path(key)
        with contextlib.suppress(OSError):
            _make_private_folders(self._folder)
            if not self._is_safe():
                return None
            # The new folder is in the cache's own folder, because a rename works only within one filesystem.
            with scratch_folder(self._folder) as staged, scratch_folder(self._folder) as damaged:
                files = {}
                for name in sorted(os.listdir(made)):
                    _copy_privately(os.path.join(made, name), os.path.join(staged, name))
                    files[name] = digest_of_file(os.path.join(staged, name))
                with open(os.open(os.path.join(staged, _ENTRY), _NEW, 0o600), "w", encoding="utf-8") as stream:
                    json.dump({"key": _as_json(key), "files": files}, stream, indent=1)
                if os.path.lexists(final) and self.find(key) is None:
                    # The bad entry is moved and not deleted in place: another process may be reading its files.
                    os.rename(final, os.path.join(damaged, "entry"))
                if not os.path.lexists(final):
                    os.rename(staged, final)
            self._prune()
        return self.find(key)

    def _prune(self) -> None:
        """Deletes the entries that were used longest ago."""
        used = []
        for name in os.listdir(self._folder):
            with contextlib.suppress(OSError):
                used.append((os.path.getmtime(os.path.join(self._folder, name, _ENTRY)), name))
        oldest = time.time() - _IN_USE_SEC
        for when, name in sorted(used, reverse=True)[MAX_ENTRIES:]:
            if when < oldest:
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)

    def _path(self, key: Key) -> str:
        canonical = json.dumps(_as_json(key), sort_keys=True)
        return os.path.join(self._folder, hashlib.sha256(canonical.encode()).hexdigest()[:32])


def _as_json(key: Key) -> Any:
    return json.loads(json.dumps(dict(key)))


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user, or the administrator, may have written a file or folder, and may write to it."""
    if os.name != "posix":
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & _WRITABLE_BY_OTHERS


def _is_safe_entry(folder: str) -> bool:
    """Whether an entry is a plain folder of plain files that nobody else may have written. Raises OSError."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        return False
    files = [os.lstat(entry.path) for entry in os.scandir(folder)]
    return all(stat.S_ISREG(file.st_mode) and _is_private(file) for file in files)


def _make_private_folders(path: str) -> None:
    """Makes a folder and its missing parents. Only this user gets access, regardless of the umask."""
    if path and not os.path.isdir(path):
        _make_private_folders(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def _copy_privately(source: str, target: str) -> None:
    with open(source, "rb") as reader, open(os.open(target, _NEW, 0o600), "wb") as writer:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)


@functools.cache
def _say_once(message: str) -> None:
    _LOGGER.warning("%s", message)
