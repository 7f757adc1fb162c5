"""Storage in memory that stops at a chosen change, as a process does that is killed, or fails once and goes on."""

import contextlib
import errno
import io

from preprocess.storage.base import PARTIAL_SUFFIX
from preprocess.storage.globs import glob_regex


class Killed(BaseException):
    """The process is gone: nothing that it would still do happens."""


class MemoryStorage:
    """Files by path.

    Args:
      files: that are there.
      stop_at: the change, counted from 0, that does not happen any more; None for none.
      fault: what happens in its stead: every operation from then on raises `Killed`, or only this one raises OSError.
      moves_whole: as on local disks; else a move is a copy and a deletion, as in object stores.
    """

    def __init__(self, files=(), *, stop_at=None, fault="killed", moves_whole=True):
        self.files = dict(files)
        self.changes = 0
        self.touched = set()
        self._stop_at, self._fault, self._moves_whole = stop_at, fault, moves_whole
        self._dead = False

    def _look(self):
        if self._dead:
            raise Killed

    def _change(self, path):
        self._look()
        if self.changes == self._stop_at:
            self._stop_at = None
            if self._fault == "killed":
                self._dead = True
                raise Killed
            raise OSError(errno.EIO, "Input/output error", path)
        self.changes += 1
        self.touched.add(path)

    def read(self, path, *, max_bytes=None):
        self._look()
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return self.files[path]

    def open(self, path):
        return io.BytesIO(self.read(path))

    @contextlib.contextmanager
    def create(self, path, *, keep_partial=False, durable=True):
        stream = io.BytesIO()
        yield stream
        try:
            self._change(path)
        except Killed:
            if self._moves_whole:  # A local disk keeps what was written under the name that it had until then.
                data = stream.getvalue()
                self.files[f"{path}{PARTIAL_SUFFIX}"] = data[: len(data) // 2]
            raise
        self.files[path] = stream.getvalue()

    def create_new(self, path, data):
        self._change(path)
        return self.files.setdefault(path, data) is data

    def match(self, pattern):
        return list(self.sizes(pattern))

    def sizes(self, pattern):
        self._look()
        regex = glob_regex(pattern)
        return {path: len(data) for path, data in sorted(self.files.items()) if regex.fullmatch(path)}

    def move(self, source, target):
        self._change(target)
        data = self.read(source)
        self.files[target] = data
        if not self._moves_whole:
            self._change(source)
        del self.files[source]

    def delete_file(self, path):
        self._change(path)
        self.files.pop(path, None)

    def delete_tree(self, path):
        for name in sorted(self.files):
            if name.startswith(f"{path}/"):
                self.delete_file(name)
