"""Looks at files without changing any, within a few seconds: JSON files, lines that hold a text, digests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from preprocess.locks.lock_holder import shown
from preprocess.storage.base import LocalStorage, Storage
from preprocess.storage.uris import has_scheme

_CHUNK_BYTES = 1 << 22
BUDGET_SEC = 2.0
"""After this time, work that takes long and may be left out is left out."""
_RETRY_SEC = 1.0
_MAX_JSON_BYTES = 256 << 20

# The weights of answers: what needs somebody's attention more has more.
FINE, RUNNING, NOTICE, UNFINISHED, BROKEN = range(5)


@dataclasses.dataclass
class Answer:
    """What is known of a photo, a set, a training or a folder.

    Attributes:
      headline: one line, with the cause first.
      facts: (title, sentence, the file that says so or an empty text).
      commands: commands that go on, each with the words that introduce it.
      weight: how much of it needs somebody's attention; the answer about several things begins with the heaviest.
    """

    headline: str
    facts: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    commands: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    weight: int = 0

    def add(self, title: str, text: str, known_from: str = "") -> None:
        """Adds a fact."""
        self.facts.append((title, text, known_from))

    def lines(self) -> Iterator[str]:
        """The answer as text. Control characters in names and messages are replaced."""
        yield one_line(self.headline)
        for title, text, known_from in self.facts:
            yield f"  {title:<11} " + one_line(text) + (f"  [{one_line(known_from)}]" if known_from else "")
        for words, command in self.commands:
            yield f"  {words:<11} {command}"


def one_line(text: str) -> str:
    """A text from a file as one line that is safe to print."""
    plain = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in plain)


class Look:
    """Reads files, and remembers how much time there is left.

    Args:
      storage: of the files.
    """

    def __init__(self, storage: Storage):
        self.storage = storage
        self._until = time.monotonic() + BUDGET_SEC
        self._early_until = time.monotonic() + BUDGET_SEC / 2

    @property
    def has_time(self) -> bool:
        """Whether there is time for work that may be left out."""
        return time.monotonic() < self._until

    @property
    def is_early(self) -> bool:
        """Whether there is time for work that takes all the time it gets, such as reading whole sets."""
        return time.monotonic() < self._early_until

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is no such file.

        Raises:
          OSError: storage failed.
        """
        try:
            return self.storage.read(path, max_bytes=_MAX_JSON_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def json(self, path: str) -> dict[str, Any] | None:
        """The object in a JSON file; None if there is none that can be read."""
        raw = self.read(path)
        try:
            data = json.loads(raw or b"")
        except (ValueError, RecursionError):
            return None
        return data if isinstance(data, dict) else None

    def lines_with(
        self, path: str, text: bytes, *, at_most: int, after: bytes | None = None
    ) -> list[tuple[int, bytes]]:
        """The lines of a file that hold a text, with their numbers; an empty list if there is no such file.

        Args:
          path: of the file. It is read in pieces, so it may be large.
          text: not empty, without line ends.
          at_most: how many lines.
          after: the bytes of which one must stand before the text, unless it begins the line; None for any.
        """
        try:
            with self.storage.open(path) as stream:
                found = []
                for number, line in _lines_with(stream, text, after):
                    found.append((number, line))
                    if len(found) >= at_most:
                        break
                return found
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return []

    def line(self, path: str, number: int) -> bytes | None:
        """One line of a file by its number, from 1; None if the file has fewer lines."""
        with self.storage.open(path) as stream:
            for at, line in enumerate(stream, start=1):
                if at == number:
                    return line.rstrip(b"\r\n")
        return None

    def digest(self, path: str) -> str | None:
        """SHA-256 of a file in hex; None if there is no such file, or no time to read it."""
        digest = hashlib.sha256()
        try:
            with self.storage.open(path) as stream:
                while piece := stream.read(_CHUNK_BYTES):
                    digest.update(piece)
                    if not self.has_time:
                        return None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return digest.hexdigest()


def _lines_with(stream: BinaryIO, text: bytes, after: bytes | None) -> Iterator[tuple[int, bytes]]:
    rest, number = b"", 1
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        data = rest + chunk
        end = data.rfind(b"\n") + 1 if chunk else len(data)
        done, rest = data[:end], data[end:]
        for start, line in _hits(done, text, after):
            yield number + done.count(b"\n", 0, start), line
        number += done.count(b"\n")
        if not chunk:
            return


def _hits(data: bytes, text: bytes, after: bytes | None) -> Iterator[tuple[int, bytes]]:
    """(start, line) of each line that holds the text, in order."""
    at = 0
    while (place := data.find(text, at)) >= 0:
        if after is not None and place and data[place - 1] not in after + b"\n":
            at = place + 1
            continue
        start = data.rfind(b"\n", 0, place) + 1
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        yield start, data[start:end].rstrip(b"\r")
        at = end + 1


def storage_for(path: str) -> Storage:
    """The storage of a path, which gives up soon if it does not answer.

    Raises:
      InputError: the scheme cannot be opened here.
    """
    if not has_scheme(path):
        return LocalStorage()
    # Here: these imports would double the time of answers about files of this machine.
    from preprocess.storage.retry import RetryPolicy
    from preprocess.storage.router import UriStorage

    return UriStorage(RetryPolicy(limit_sec=_RETRY_SEC))


def short(text: str) -> str:
    """A text of a file in one line of a few hundred characters."""
    return shown(one_line(text))


def objects_in(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects in lines of JSON. Lines that hold none are left out, such as the last one of a file cut short."""
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
