"""Writes the files of a program of this package into its output folder: whole files, or none."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TextIO

from configs.errors import InputError
from insight.data.writable_folder import require_writable
from trainer.storage.files import cause_of, is_in_bucket, storage


class OutputFolder:
    """The folder for the page and the tables of a run, local or gs://."""

    def __init__(self, path: str, names: Sequence[str], *, overwrite: bool, flag: str = "output_path"):
        """Checks the folder before any work is done.

        Args:
          path: the folder. It need not exist.
          names: the names of all files that the run will write.
          overwrite: whether files of these names may be replaced.
          flag: the option that named it, for the messages.

        Raises:
          InputError: there is a file of one of these names already, the folder cannot be looked into, or no folder can
            be there.
        """
        self._folder = path
        self._names = frozenset(names)
        self._flag = flag
        self._require_place()
        for name in names:
            try:
                exists = self.path(name) in storage().match(self.path(name))
            except OSError as error:
                raise InputError(f"--{flag}: cannot look into {path}: {cause_of(error)}.") from error
            if exists and not overwrite:
                raise InputError(
                    f"--{flag}: {self.path(name)} is there already. Pass --overwrite to replace it, or name another "
                    "folder."
                )

    def _require_place(self) -> None:
        if is_in_bucket(self._folder):
            return
        require_writable(self._folder, flag=self._flag)
        for name in sorted(self._names):
            if os.path.isdir(self.path(name)):
                raise InputError(f"--{self._flag}: {self.path(name)} is a folder, and a file is to be written there.")

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return posixpath.join(self._folder, name)

    def write(self, name: str, data: bytes | str) -> None:
        """Writes a file as a whole; text as UTF-8.

        Raises:
          InputError: it cannot be written.
        """
        with self._created(name) as stream:
            stream.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)

    @contextlib.contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        """A file to write text to as it is made, as UTF-8; it appears when it is complete.

        Raises:
          InputError: it cannot be written.
        """
        with self._created(name) as stream:
            encoded = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
            yield encoded
            encoded.flush()
            encoded.detach()  # Closing is for `create`, which makes the file appear.

    @contextlib.contextmanager
    def _created(self, name: str) -> Iterator[BinaryIO]:
        assert name in self._names, name
        try:
            with storage().create(self.path(name)) as stream:
                yield stream
        except OSError as error:
            raise InputError(f"--{self._flag}: cannot write {self.path(name)}: {cause_of(error)}.") from error
