"""Converted networks kept on disk, so that a program's second start does no conversion.

An entry is a folder of files under `HUGS_CACHE_DIR` (default ~/.cache/hugs) with its key and the checksums of its files
in `entry.json`. Entries appear by one rename, so a reader sees a whole entry or none. Whatever is wrong with an entry
(damaged, foreign, half deleted), it is made anew; whatever is wrong with the folder (read-only, full) costs time and
nothing else. The entries used last are kept, up to `MAX_ENTRIES`, and all that were used within a day: a running job
may be reading them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from preprocess.file_digest import digest_of_file

# An entry is a network of 25 to 90 MB; int8 makes one for each list that it was calibrated on.
MAX_ENTRIES = 20

_ENTRY = "entry.json"
_IN_USE_SEC = 24 * 3600

Key = Mapping[str, Any]
"""What an entry was made from, as JSON: another key, another entry."""


def cache_folder() -> str:
    """Where entries are kept: `HUGS_CACHE_DIR`, or ~/.cache/hugs."""
    return os.environ.get("HUGS_CACHE_DIR") or os.path.expanduser("~/.cache/hugs")


class ModelCache:
    """Entries by key.

    Files that cannot be kept live in a temporary folder for as long as this object.
    """

    def __init__(self, folder: str | None = None):
        self._folder = folder or cache_folder()
        self._unkept: list[tempfile.TemporaryDirectory[str]] = []

    def find(self, key: Key) -> str | None:
        """The folder of the entry's files; None if there is none or it is not exactly what was stored."""
        folder = self._path(key)
        try:
            with open(os.path.join(folder, _ENTRY), encoding="utf-8") as stream:
                entry = json.load(stream)
            if entry["key"] != _as_json(key):
                return None
            for name, digest in entry["files"].items():
                if digest_of_file(os.path.join(folder, os.path.basename(name))) != digest:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(os.path.join(folder, _ENTRY))  # When it was last used.
        return folder

    def find_or_make(self, key: Key | None, write: Callable[[str], None]) -> str:
        """The folder of the entry's files; `write` makes them in the folder that it is given, if there is no entry.

        Args:
          key: of the entry; None for what cannot be told apart from later versions of itself, and so is not kept.
          write: writes the files. What it raises is passed on, and nothing is kept.
        """
        found = None if key is None else self.find(key)
        if found is not None:
            return found
        made = tempfile.TemporaryDirectory(prefix="hugs-")
        try:
            write(made.name)
        except BaseException:
            made.cleanup()
            raise
        if key is not None:
            kept = self._keep(key, made.name)
            if kept is not None:
                made.cleanup()
                return kept
        self._unkept.append(made)
        return made.name

    def _keep(self, key: Key, made: str) -> str | None:
        final = self._path(key)
        # In the cache's own folder, since a rename works only within one filesystem.
        staged = os.path.join(self._folder, f".{uuid.uuid4().hex}")
        try:
            os.makedirs(self._folder, exist_ok=True)
            shutil.copytree(made, staged)
            files = {name: digest_of_file(os.path.join(staged, name)) for name in sorted(os.listdir(staged))}
            with open(os.path.join(staged, _ENTRY), "w", encoding="utf-8") as stream:
                json.dump({"key": _as_json(key), "files": files}, stream, indent=1)
            if os.path.lexists(final) and self.find(key) is None:
                # Not by deleting it in place: another process may be reading its files.
                os.rename(final, f"{staged}-damaged")
            if not os.path.lexists(final):
                os.rename(staged, final)
            self._prune()
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(staged, ignore_errors=True)
                shutil.rmtree(f"{staged}-damaged", ignore_errors=True)
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
