"""A disk that forgets, at every step of a program, what was not synced.

The real system calls are made, and beside them it is noted what a filesystem promises: the content of a file as it was
when the file was synced last, and the names in a folder as they were when the folder was. What would be there after a
power cut at any moment can then be laid out in another folder, and a real program started on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

_CHANGES = ("replace", "rename", "remove", "unlink", "rmdir")


@dataclasses.dataclass
class Disk:
    """What is on the disk below one folder, which must be empty or synced at the beginning.

    Attributes:
      cuts: what a power cut would have left, {path within the folder: content}, before and after each step, where
        it differs from that of the step before; None as content for a folder.
    """

    root: pathlib.Path
    contents: dict[int, bytes] = dataclasses.field(default_factory=dict)
    folders: dict[int, dict[str, int]] = dataclasses.field(default_factory=dict)
    cuts: list[dict[str, bytes | None]] = dataclasses.field(default_factory=list)

    def note_synced(self, path: pathlib.Path) -> None:
        """Notes that a file or folder, as it is now, is on the disk."""
        number = path.stat().st_ino
        # A file may have the number of a folder that was deleted, and a folder that of a file.
        self.contents.pop(number, None)
        self.folders.pop(number, None)
        if path.is_dir():
            with os.scandir(path) as entries:
                self.folders[number] = {entry.name: entry.inode() for entry in entries}
        else:
            self.contents[number] = path.read_bytes()

    def note_all(self) -> None:
        """Notes that all that is there now is on the disk."""
        for path in (self.root, *self.root.rglob("*")):
            self.note_synced(path)

    def _layout(self, number: int, at: str) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for name, inode in self.folders[number].items():
            path = f"{at}{name}"
            if inode in self.folders:
                found[path] = None
                found |= self._layout(inode, f"{path}/")
            else:
                # A name may be on the disk before the content is: the file is empty then.
                found[path] = self.contents.get(inode, b"")
        return found

    def cut(self) -> None:
        """Notes what a power cut at this moment would leave."""
        state = self._layout(self.root.stat().st_ino, "")
        if not self.cuts or state != self.cuts[-1]:
            self.cuts.append(state)


def lay_out(state: dict[str, bytes | None], folder: pathlib.Path) -> pathlib.Path:
    """Makes a folder of what a power cut has left."""
    folder.mkdir(parents=True)
    for name, content in state.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


@contextlib.contextmanager
def forgetful(root: pathlib.Path, monkeypatch) -> Iterator[Disk]:
    """While active, notes what is on the disk below a folder, all of which is synced at the beginning."""
    disk = Disk(root)
    disk.note_all()
    disk.cut()
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path == root or root in path.parents:
            disk.note_synced(path)
            disk.cut()

    def changed(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            disk.cut()
            return result

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", synced)
        for name in _CHANGES:
            patched.setattr(os, name, changed(getattr(os, name)))
        yield disk
    disk.cut()
