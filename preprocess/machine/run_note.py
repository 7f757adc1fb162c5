"""The note of a run: its command, its process, and how it ended. It stays until the work is finished, for `hugs why`.

The note is never worth an error: whatever happens to it, the run goes on and ends as it would without it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from configs.arguments import current_folder
from configs.errors import InputError
from configs.json_text import json_line
from preprocess.storage.base import Storage, is_file, open_own, read_file, write_file
from preprocess.storage.uris import has_scheme

NOTE_NAME = "last_run.json"

# The kinds of ends that a note knows. A note without an end is that of a run that goes on, or that was killed.
ERROR, SIGNAL, BUG = "error", "signal", "bug"

# On a disk the note takes this room from the start. So its end can still be written on a disk that has become full.
_ROOM_BYTES = 4096
_MAX_MESSAGE = 1500
_WAIT_SEC = 1.0
_SECRET = re.compile(r"secret|password|token|credential", re.IGNORECASE)

_open: list[RunNote] = []


class RunNote:
    """The note of the run of this process in one folder.

    Args:
      folder: the folder of the unfinished work.
      storage: of the folder.
      module: the module that is the program.
      arguments: the words of its command line. Flags whose names promise a secret are left out.
      facts: further facts about the run, as JSON, for example the number of rows.
    """

    def __init__(
        self,
        folder: str,
        storage: Storage,
        *,
        module: str,
        arguments: Sequence[str],
        facts: dict[str, Any] | None = None,
    ):
        self._path = f"{folder}/{NOTE_NAME}"
        self._storage = storage
        self._forgotten = False
        self._content: dict[str, Any] = {
            "module": module,
            "arguments": _without_secrets(arguments),
            "folder": current_folder(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _now(),
            **(facts or {}),
        }

    def begin(self) -> None:
        """Writes the note."""
        self._write(create=True)

    def end(self, how: str, message: str) -> None:
        """Adds to the note how the run ended.

        Args:
          how: ERROR, SIGNAL or BUG.
          message: one line.
        """
        if self._forgotten:
            return
        self._content["ended"] = {"how": how, "message": " ".join(message.split())[:_MAX_MESSAGE], "time": _now()}
        self._write(create=False)

    def refuse(self, message: str, *, unless: str) -> None:
        """Writes the note of a run that was refused before it had the lock of its folder.

        Args:
          message: why it was refused, one line.
          unless: a file. If it is there, another run may be writing, and its note must stay.
        """
        with contextlib.suppress(Exception):
            if not is_file(self._storage, unless):
                self.end(ERROR, message)

    def forget(self) -> None:
        """Deletes the note, because the work is finished. What ends the run later is not noted."""
        self._forgotten = True
        with contextlib.suppress(Exception):
            self._storage.delete_file(self._path)

    def _write(self, *, create: bool) -> None:
        def write() -> None:
            with contextlib.suppress(Exception):
                data = json_line(self._content, indent=1)
                if has_scheme(self._path):
                    write_file(self._storage, self._path, data, durable=False)
                elif create or not _write_over(self._path, data):
                    try:
                        write_file(self._storage, self._path, data.ljust(_ROOM_BYTES, b" "), durable=False)
                    except OSError:  # There may be room for the note, if not for more.
                        write_file(self._storage, self._path, data, durable=False)

        if create:
            write()
            return
        # In a thread, because a disk or a bucket that does not answer must not hold up the end of a program.
        with contextlib.suppress(RuntimeError):  # No thread can be started.
            thread = threading.Thread(target=write, name="run note", daemon=True)
            thread.start()
            thread.join(_WAIT_SEC)


@contextlib.contextmanager
def noted(note: RunNote | None, *, lost: type[BaseException] | tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Writes a note, and adds to it how the body ended, unless it ended without an exception.

    Args:
      note: the note; None for no note.
      lost: exceptions after which this run may not write any more.
    """
    if note is None:
        yield
        return
    note.begin()
    _open.append(note)
    try:
        with _termination_noted():
            yield
    except lost:
        raise
    except KeyboardInterrupt:
        note.end(SIGNAL, "SIGINT")
        raise
    except InputError as error:
        note.end(ERROR, str(error))
        raise
    except Exception as error:
        # A runner's message is a traceback, whose last line names the error.
        lines = str(error).strip().splitlines()
        note.end(BUG, lines[-1] if len(lines) > 1 else f"{type(error).__name__}: {error}")
        raise
    finally:
        _open.remove(note)


@contextlib.contextmanager
def _termination_noted() -> Iterator[None]:
    """Within this context, SIGTERM is noted before it ends the process, if the program has no handler of its own."""

    def stop(number: int, frame: FrameType | None) -> None:
        note_signal(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, stop)
    except ValueError:  # This is not the main thread, and only the main thread may set signal handlers.
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def note_signal(number: int) -> None:
    """Adds to all notes of this process that a signal ended it."""
    for note in _open:
        note.end(SIGNAL, signal.Signals(number).name)


def read_note(folder: str, storage: Storage) -> dict[str, Any] | None:
    """The content of the note in a folder; None if there is none that can be read."""
    try:
        found = json.loads(read_file(storage, f"{folder}/{NOTE_NAME}"))
        words = found["arguments"]
        if isinstance(found["module"], str) and isinstance(words, list) and all(isinstance(w, str) for w in words):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _write_over(path: str, data: bytes) -> bool:
    """Writes over a note that has the room for it, without needing new room on the disk."""
    try:
        if os.path.getsize(path) < len(data):
            return False
        with open_own(path, "r+b") as stream:
            stream.write(data.ljust(os.path.getsize(path), b" "))
        return True
    except OSError:
        return False


def _without_secrets(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    left_out = False
    for word in words:
        if word.startswith("--"):
            left_out = _SECRET.search(word.partition("=")[0]) is not None
        if not left_out:
            kept.append(word)
    return kept


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
